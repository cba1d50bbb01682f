/** What the server says, in Korean. */

const TEXTS = [
  [/^Model '(.+?)' is not installed\. Installed models: (.+)\. To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치된 모델: $2. 설치 명령: $3"],
  [/^Model '(.+?)' is not installed\..*To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치 명령: $2"],
];

/** Returns a text of the server in Korean; one that is not known stays as it is. */
export function translated(text) {
  const [pattern, korean] = TEXTS.find(([pattern]) => pattern.test(text)) ?? [];
  return pattern ? text.replace(pattern, korean) : text;
}
