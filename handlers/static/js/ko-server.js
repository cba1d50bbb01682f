/** What the server says, in Korean. The patterns follow core/contract and its callers; a test compares them. */

const TRY_AGAIN = /^(.*)\. Try again in (\d+) seconds?$/s;
const OLLAMA_FAILED = /^Ollama connection error: (.*)$/s;
const HOW_TO_GET_A_KEY = "키는 서버 운영자가 python -m core.keys create --name NAME 명령으로 만듭니다.";

const TEXTS = [
  [/^Model '(.+?)' is not installed\. Installed models: (.+)\. To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치된 모델: $2. 설치 명령: $3"],
  [/^Model '(.+?)' is not installed\. No model is installed yet\. To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 아직 설치된 모델이 없습니다. 설치 명령: $2"],
  [/^Model '(.+?)' is not installed\..*To install it: (.+)$/s, "‘$1’ 모델이 설치되어 있지 않습니다. 설치 명령: $2"],
  [/^Model '(.+?)' would send the message to a cloud service.*$/s, "‘$1’ 모델은 메시지를 클라우드로 보내므로 이 서버에서 사용할 수 없습니다. 다른 모델을 선택하세요."],
  [/^Your key may not use model '(.+?)'.*$/s, "이 키로는 ‘$1’ 모델을 사용할 수 없습니다. 다른 모델을 선택하세요."],
  [/^Request timeout: .* within (\S+) seconds\. Ollama is not responding.*$/s, "Ollama가 $1초 안에 응답하지 않았습니다. Ollama 컴퓨터가 과부하 상태인지 확인하세요."],
  [/^Request timeout: no complete answer within (\S+) seconds.*$/s, "$1초 안에 답변이 끝나지 않았습니다. 메시지나 답변 최대 길이를 줄이거나 더 작은 모델을 사용하세요."],
  [/^Ollama is busy: its queue is full$/, "Ollama가 바쁩니다. 대기열이 가득 찼습니다."],
  [/^Ollama is busy: .*$/s, "Ollama가 바쁩니다. Ollama 또는 그 앞의 중계 서버가 요청 수를 제한하고 있습니다."],
  [/^Ollama is not available: every Ollama machine is down$/, "모든 Ollama 컴퓨터가 응답하지 않습니다."],
  [/^Ollama is not available: every Ollama machine of this model is down$/, "이 모델을 실행하는 모든 Ollama 컴퓨터가 응답하지 않습니다."],
  [/^Ollama is not available: every Ollama machine is busy, or none can be reached$/, "모든 Ollama 컴퓨터가 바쁘거나 연결할 수 없는 상태입니다."],
  [/^Ollama is not available: (.*)$/s, "Ollama를 사용할 수 없습니다: $1."],
  [/^Ollama does not answer$/, "Ollama가 응답하지 않습니다."],
  [/^Models are being loaded: (.*)$/s, "모델을 불러오는 중입니다: $1."],
  [/^The server is stopping$/, "서버가 종료되는 중입니다."],
  [/^The queue is full: (\d+) requests wait for (\d+) slots$/, "대기열이 가득 찼습니다. 동시에 요청 $2개를 처리하며, $1개가 기다리고 있습니다."],
  [/^No slot became free within (\S+) seconds$/, "$1초 동안 기다렸지만 차례가 오지 않았습니다."],
  [/^No slot is available: the store that counts them is down$/, "대기열을 관리하는 저장소가 응답하지 않아 요청을 처리할 수 없습니다."],
  [/^Too many requests with wrong credentials.*$/s, "이 주소에서 잘못된 키로 보낸 요청이 너무 많습니다."],
  [/^Too many requests: your limit is (.+)$/, "요청 한도($1)를 넘었습니다."],
  [/^Your quota of (\d+) tokens is used up\. It renews in (\d+) seconds$/, "토큰 한도 $1개를 모두 사용했습니다. 한도는 $2초 뒤에 갱신됩니다."],
  [/^Your address has too many connections: (\d+) are allowed$/, "이 주소의 연결이 너무 많습니다. $1개까지 허용됩니다."],
  [/^This server has too many connections$/, "서버의 연결이 너무 많습니다."],
  [/^This server is holding as many request bodies as its memory allows$/, "서버의 메모리가 다른 요청으로 가득 찼습니다."],
  [/^The rate limiter's store is down, so requests are refused$/, "요청 한도를 관리하는 저장소가 응답하지 않아 요청을 처리할 수 없습니다."],
  [/^Tokens cannot be verified now: their issuer is not responding$/, "발급자가 응답하지 않아 지금은 인증 토큰을 확인할 수 없습니다."],
  [/^API keys cannot be checked now$/, "지금은 API 키를 확인할 수 없습니다."],
  [/^The body is over (\d+) bytes.*$/s, "요청이 $1바이트를 넘습니다. 메시지를 줄이거나 더 작은 이미지를 보내세요."],
  // The fronts in deploy say these.
  [/^The request is too large$/, "요청이 너무 큽니다. 메시지를 줄이거나 더 작은 이미지를 보내세요."],
  [/^Your address has too many connections open$/, "이 주소의 연결이 너무 많습니다."],
  [/^The gateway does not answer\. .*$/s, "서버가 응답하지 않습니다. ollama-web-api가 실행 중인지 확인하세요."],
  [/^No gateway answers\. .*$/s, "응답하는 서버가 없습니다. ollama-web-api가 실행 중인지 확인하세요."],
  [/^The gateway has not answered in time$/, "서버가 제때 응답하지 않았습니다."],
  [/^The gateway has broken the connection\. .*$/s, "서버와의 연결이 끊겼습니다. 메시지를 다시 보내세요."],
  [/^This is not a valid HTTPS request, .*$/s, "올바른 HTTPS 요청이 아니거나 헤더가 너무 깁니다."],
  [/^The body has stopped arriving.*$/s, "요청이 도중에 끊겼습니다. 다시 보내세요."],
  [/^The body .*$/s, "서버가 요청을 읽을 수 없습니다. ($&)"],
  [/^The charset of the body .*$/s, "서버가 요청의 문자 인코딩을 지원하지 않습니다. UTF-8로 보내세요."],
  [/^The conversation is longer than this server's limit of (\d+) bytes.*$/s, "대화가 이 서버의 한도인 $1바이트를 넘습니다. 새 대화를 시작하세요."],
  [/^Ollama rejected this request: (.*)\. The conversation is longer than the model can read.*$/s, "대화가 모델이 읽을 수 있는 길이를 넘습니다. 새 대화를 시작하거나 메시지를 줄이세요. (Ollama: $1)"],
  [/^Ollama rejected this request: (.*)$/s, "Ollama가 요청을 거부했습니다: $1"],
  [/^images: model '(.+?)' cannot see images.*$/s, "‘$1’ 모델은 이미지를 볼 수 없습니다. 이미지를 볼 수 있는 모델을 선택하세요."],
  [/^images: .*exceed the limit of (\d+)$/, "이미지는 $1개까지 보낼 수 있습니다."],
  [/^Credentials are needed: .* and (\S+) is not among them$/s, `인증이 필요합니다. ${HOW_TO_GET_A_KEY} ANONYMOUS_CLIENTS에 있는 주소만 키 없이 사용할 수 있으며, $1 주소는 여기에 포함되지 않습니다.`],
  [/^Credentials are needed.*$/s, `인증이 필요합니다. ${HOW_TO_GET_A_KEY} ANONYMOUS_CLIENTS에 있는 주소만 키 없이 사용할 수 있으며, 클라이언트 주소를 전달하지 않거나 TRUSTED_PROXIES에 없는 프록시를 거친 요청은 여기에 포함되지 않습니다.`],
  [/^Invalid credentials: the API key has expired.*$/s, `API 키가 만료되었습니다. ${HOW_TO_GET_A_KEY}`],
  [/^Invalid credentials: the API key is unknown or has been revoked.*$/s, `등록되지 않았거나 폐기된 API 키입니다. ${HOW_TO_GET_A_KEY}`],
  [/^Invalid credentials: the token has expired.*$/s, `인증 토큰이 만료되었습니다. ${HOW_TO_GET_A_KEY}`],
  [/^Invalid credentials: (.+?)\. Send .*$/s, `인증 토큰이 올바르지 않습니다($1). ${HOW_TO_GET_A_KEY}`],
  [/^The request carries several different credentials.*$/s, "요청에 서로 다른 인증 정보가 여러 개 있습니다. 하나만 보내세요."],
  [/^Requests from (\S+) are not allowed.*$/s, "$1 주소의 요청은 허용되지 않습니다."],
  [/^The Host header does not name this server.*$/s, "이 호스트 이름으로는 서버를 사용할 수 없습니다. 서버 운영자가 ALLOWED_HOSTS에 추가할 수 있습니다."],
  [/^.*CORS_ORIGINS lists the allowed origins$/s, "이 페이지의 출처는 허용되지 않습니다. CORS_ORIGINS에 있는 출처만 허용됩니다."],
  [/^Unknown endpoint (\S+)\..*$/s, "$1 경로는 이 서버에 없습니다."],
  [/^Method (\S+) is not allowed here\. Use (.+)$/, "$1 메서드는 여기에서 사용할 수 없습니다. 사용할 수 있는 메서드: $2"],
  [/^Internal error.*$/s, "서버 내부 오류입니다. 서버 로그를 확인하세요."],
  [/^This server's settings are invalid.*$/s, "서버 설정이 올바르지 않습니다. 서버 로그를 확인하세요."],
  [/^The answer is over 6 MB.*$/s, "답변이 AWS Lambda의 한도인 6MB를 넘습니다. 새 대화를 시작하거나 더 짧은 답변을 요청하세요."],
  [/^The request's head exceeds (\d+) bytes$/, "요청 헤더가 $1바이트를 넘습니다."],
  [/^(?:No complete request within|Invalid HTTP request|The previous request is|Transfer-Encoding may only).*$/s, "서버가 HTTP 요청을 읽을 수 없습니다. ($&)"],
  [/^([\w.$[\]]+): (.+)$/s, "서버가 요청의 ‘$1’ 값을 받아들이지 않았습니다. ($2)"],
];

const OLLAMA_TEXTS = [
  [/^cannot connect to Ollama.*$/s, "Ollama에 연결할 수 없습니다. 실행 중인지, OLLAMA_BASE_URL이 맞는지 확인하세요."],
  [/^Ollama did not accept a connection in time.*$/s, "Ollama가 제때 연결을 받지 않았습니다. 컴퓨터가 켜져 있는지 확인하세요."],
  [/^Ollama's machine stopped responding.*$/s, "Ollama 컴퓨터가 더 이상 응답하지 않습니다. 컴퓨터와 네트워크를 확인하세요."],
  [/^the certificate at its address is not valid \((.*?)\).*$/s, "Ollama 주소의 인증서가 올바르지 않습니다($1). 그 인증서를 갱신하거나 이 서버의 OLLAMA_CA_FILE을 확인하세요."],
  [/^the built-in model has stopped.*$/s, "내장 모델이 멈춰서 다시 시작하고 있습니다. 몇 초 뒤에 다시 시도하세요. 멈춘 이유는 서버 로그에 있습니다."],
  [/^the server at OLLAMA_BASE_URL does not speak HTTP.*$/s, "OLLAMA_BASE_URL의 서버가 HTTP로 응답하지 않습니다. 프로토콜(http 또는 https)과 포트를 확인하세요."],
  [/^this server has no file descriptor left.*$/s, "이 서버에 Ollama와 연결할 파일 디스크립터가 남아 있지 않습니다. 잠시 뒤에 다시 시도하세요. 서버 운영자가 한도(ulimit -n)를 늘릴 수 있습니다."],
  [/^the connection to Ollama broke.*$/s, "답변이 끝나기 전에 Ollama와의 연결이 끊겼습니다. 메시지를 다시 보내세요."],
  [/^the answer ended before it was complete.*$/s, "답변이 끝나기 전에 끊겼습니다. 메시지를 다시 보내세요."],
  [/^the answer is not Ollama's.*$/s, "Ollama의 응답이 아닙니다. OLLAMA_BASE_URL을 확인하세요."],
  [/^it denied this server access \((HTTP \d+)\).*$/s, "Ollama가 이 서버의 접근을 거부했습니다($1). 이 서버의 OLLAMA_HEADERS와 Ollama 컴퓨터의 OLLAMA_HOST를 확인하세요."],
  [/^no Ollama found at this address \((HTTP \d+)\).*$/s, "이 주소에는 Ollama가 없습니다($1). OLLAMA_BASE_URL을 확인하세요."],
  [/^it failed without saying why \((HTTP \d+)\).*$/s, "이유를 알 수 없는 오류입니다($1). Ollama의 로그를 확인하세요."],
  [/^it failed\. Its log says why$/, "오류가 발생했습니다. 이유는 Ollama의 로그에 있습니다."],
];

function find(texts, text) {
  const [pattern, korean] = texts.find(([pattern]) => pattern.test(text)) ?? [];
  return pattern ? text.replace(pattern, korean) : text;
}

/** Returns a text of the server in Korean; one that is not known stays as it is. */
export function translated(text) {
  const failure = OLLAMA_FAILED.exec(text);
  if (failure) return `Ollama 연결 오류: ${find(OLLAMA_TEXTS, failure[1])}`;
  const [, problem, seconds] = TRY_AGAIN.exec(text) ?? [text, text];
  const korean = find(TEXTS, problem);
  if (korean === problem) return text;
  return seconds ? `${korean} ${seconds}초 뒤에 다시 시도하세요.` : korean;
}
