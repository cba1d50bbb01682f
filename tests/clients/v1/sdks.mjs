// Calls the server as one SDK does, once for each case, and prints what became of each as JSON.
// node sdks.mjs CLIENT BASE_URL KEY MODEL COUNT

import process from 'node:process';

const [client, url, apiKey, model, count] = process.argv.slice(2);
const messages = [{ role: 'user', content: '안녕하세요!' }];

const calls = {
  async openai() {
    const { default: OpenAI } = await import('openai');
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 2 });
    return async () => {
      let text = '';
      for await (const chunk of await openai.chat.completions.create({ model, messages, stream: true })) {
        text += chunk.choices[0].delta.content ?? '';
      }
      return text;
    };
  },
  async responses() {
    const { default: OpenAI } = await import('openai');
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 2 });
    return async () => {
      let text = '';
      for await (const event of await openai.responses.create({ model, input: '안녕', stream: true })) {
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
      return text;
    };
  },
  async anthropic() {
    const { default: Anthropic } = await import('@anthropic-ai/sdk');
    const anthropic = new Anthropic({ baseURL: url, apiKey, maxRetries: 2 });
    return async () => {
      let text = '';
      const stream = await anthropic.messages.create({ model, messages, max_tokens: 16, stream: true });
      for await (const event of stream) {
        if (event.type === 'content_block_delta') text += event.delta.text;
      }
      return text;
    };
  },
  async ai() {
    const { streamText } = await import('ai');
    const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
    const provider = createOpenAICompatible({ name: 'ollama', baseURL: `${url}/v1`, apiKey });
    return async () => {
      let text = '';
      const { fullStream } = streamText({ model: provider(model), messages, onError() {} });
      for await (const part of fullStream) {
        if (part.type === 'text-delta') text += part.text;
        if (part.type === 'error') throw part.error instanceof Error ? part.error : new Error(JSON.stringify(part.error));
      }
      return text;
    };
  },
};

const call = await calls[client]();
const results = [];
for (let index = 0; index < Number(count); index += 1) {
  try {
    results.push({ text: await call() });
  } catch (error) {
    results.push({ error: String(error.message ?? error), status: error.status ?? error.statusCode ?? null });
  }
}
console.log(JSON.stringify(results));
