// Asks with axios: a whole answer, then a stream that continues the conversation.
import axios from 'axios';

const api = axios.create({
  baseURL: process.env.OLLAMA_WEB_API_URL ?? 'http://127.0.0.1:5000',
  headers: process.env.OLLAMA_WEB_API_KEY
    ? { Authorization: `Bearer ${process.env.OLLAMA_WEB_API_KEY}` }
    : {},
  timeout: 330_000,
});

export async function chat(message, fields = {}) {
  const answer = await api.post('/api/chat', { message, ...fields });
  return answer.data;
}

// Yields the answer as it is written; it is complete unless this throws.
export async function* chatStream(message, fields = {}) {
  const answer = await api.post('/api/chat/stream', { message, ...fields }, {
    responseType: 'stream',
  });
  answer.data.setEncoding('utf8'); // keeps a letter whole that arrives in two pieces
  let rest = '';
  let done = false;
  for await (const text of answer.data) {
    const lines = (rest + text).split('\n'); // node:readline would cut at U+2028 too
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if ('error' in event) throw new Error(event.error);
      yield event.response;
      done = event.done;
    }
  }
  if (!done) throw new Error('The answer was cut off');
}

// What the server says about a failure; a stream's body must be read first.
export async function reason(failure) {
  let body = failure.response?.data;
  if (body?.setEncoding) body = JSON.parse((await body.setEncoding('utf8').toArray()).join(''));
  return body?.error ? `${failure.response.status}: ${body.error}` : failure.message;
}

try {
  const first = await chat(process.argv[2] ?? '안녕하세요!');
  console.log(first.response);
  for await (const text of chatStream('Say that again, please.', { context: first.context })) {
    process.stdout.write(text);
  }
  console.log();
} catch (failure) {
  console.error(await reason(failure));
  process.exitCode = 1;
}
