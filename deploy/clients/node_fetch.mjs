// Asks with the fetch that Node and browsers have built in: a whole answer, then a stream.
// It keeps the conversation itself.
const url = process.env.OLLAMA_WEB_API_URL ?? 'http://127.0.0.1:5000';
const key = process.env.OLLAMA_WEB_API_KEY;

async function post(path, body) {
  const answer = await fetch(url + path, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      ...(key && { Authorization: `Bearer ${key}` }),
    },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.json()).error}`);
  return answer;
}

export async function chat(messages, fields = {}) {
  return (await (await post('/api/chat', { messages, ...fields })).json()).response;
}

// Yields the answer as it is written; it is complete unless this throws.
export async function* chatStream(messages, fields = {}) {
  const answer = await post('/api/chat/stream', { messages, ...fields });
  let rest = '';
  let done = false;
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split('\n');
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

try {
  const talk = [{ role: 'user', content: process.argv[2] ?? '안녕하세요!' }];
  const first = await chat(talk);
  console.log(first);
  talk.push({ role: 'assistant', content: first });
  talk.push({ role: 'user', content: 'Say that again, please.' });
  for await (const text of chatStream(talk)) process.stdout.write(text);
  console.log();
} catch (failure) {
  console.error(failure.cause?.message ?? failure.message);
  process.exitCode = 1;
}
