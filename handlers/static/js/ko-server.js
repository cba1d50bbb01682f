/** What the server says, in Korean. The patterns follow core/contract/errors.py, retryable.py and their callers. */

const TEXTS = [
  [/^Model '(.+?)' is not installed\. Installed models: (.+)\. To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치된 모델: $2. 설치 명령: $3"],
  [/^Model '(.+?)' is not installed\..*To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치 명령: $2"],
  [/^Your key may not use model '(.+?)'.*$/s, "이 키로는 ‘$1’ 모델을 사용할 수 없습니다."],
  [/^Ollama connection error: (.*)$/s, "Ollama 연결 오류: $1"],
  [/^Request timeout.*$/s, "제한 시간 안에 답변이 끝나지 않았습니다."],
  [/^Ollama is busy: its queue is full\. Try again in (\d+) seconds?.*$/s, "Ollama가 바쁩니다. 대기열이 가득 찼습니다. $1초 뒤에 다시 시도하세요."],
  [/^The server is stopping.*?(\d+) seconds?.*$/s, "서버가 종료되는 중입니다. $1초 뒤에 다시 시도하세요."],
  [/^Too many requests with wrong credentials.*?(\d+) seconds?.*$/s, "잘못된 키로 너무 많이 요청했습니다. $1초 뒤에 다시 시도하세요."],
  [/^Too many requests: your limit is (.+)\. Try again in (\d+) seconds?.*$/s, "요청 한도($1)를 넘었습니다. $2초 뒤에 다시 시도하세요."],
  [/^The body is over (\d+) bytes.*$/s, "요청이 $1바이트를 넘습니다. 메시지를 줄이거나 더 작은 이미지를 보내세요."],
  [/^Credentials are needed.*$/s, "인증이 필요합니다. 서버 운영자에게 API 키를 받으세요."],
  [/^Invalid credentials: the (?:token|API key) has expired.*$/s, "API 키 또는 토큰이 만료되었습니다."],
  [/^Invalid credentials: .*$/s, "API 키 또는 토큰이 올바르지 않습니다."],
  [/^Requests from (\S+) are not allowed.*$/s, "$1 주소의 요청은 허용되지 않습니다."],
  [/^Internal error.*$/s, "서버 내부 오류입니다. 자세한 내용은 서버 로그에 있습니다."],
];

/** Returns a text of the server in Korean; one that is not known stays as it is. */
export function translated(text) {
  const [pattern, korean] = TEXTS.find(([pattern]) => pattern.test(text)) ?? [];
  return pattern ? text.replace(pattern, korean) : text;
}
