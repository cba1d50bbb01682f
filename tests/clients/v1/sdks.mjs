// Calls the server as one SDK for Node does, and prints what became of each call as JSON.
// node sdks.mjs CLIENT URL KEY MODEL CALL...

import process from 'node:process';

const [client, url, givenKey, model, ...calls] = process.argv.slice(2);
const messages = [{ role: 'user', content: '안녕하세요!' }];
const parameters = { type: 'object', properties: {} };
// Without additionalProperties, a model may go on with properties of its own until it is cut off.
const schema = {
  type: 'object',
  properties: { capital: { type: 'string', maxLength: 10 } },
  required: ['capital'],
  additionalProperties: false,
};
const PATIENCE_MS = 300_000;

// Each returns how its SDK makes the calls; `stream` yields texts.
const sdks = {
  async openai({ apiKey, maxRetries, timeout }) {
    const { default: OpenAI } = await import('openai');
    const { makeParseableResponseFormat } = await import('openai/lib/parser');
    const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries, timeout });
    const chat = openai.chat.completions;
    return {
      async *stream() {
        for await (const chunk of await chat.create({ model, messages, stream: true })) {
          yield chunk.choices[0].delta.content ?? '';
        }
      },
      plain: async () => (await chat.create({ model, messages })).choices[0].message.content,
      async tool() {
        const tools = [{ type: 'function', function: { name: 'weather', parameters } }];
        const [call] = (await chat.create({ model, messages, tools })).choices[0].message.tool_calls;
        return [call.function.name, JSON.parse(call.function.arguments)];
      },
      async parse() {
        const format = { type: 'json_schema', json_schema: { name: 'capital', schema } };
        const response_format = makeParseableResponseFormat(format, JSON.parse);
        return (await chat.parse({ model, messages, response_format })).choices[0].message.parsed.capital;
      },
      async embed() {
        const { data } = await openai.embeddings.create({ model, input: ['hello', '안녕'] });
        return data.map((entry) => entry.embedding.length);
      },
    };
  },
  async responses({ apiKey, maxRetries, timeout }) {
    const { default: OpenAI } = await import('openai');
    const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries, timeout });
    return {
      async *stream() {
        for await (const event of await responses.create({ model, input: '안녕', stream: true })) {
          if (event.type === 'response.output_text.delta') yield event.delta;
        }
      },
      plain: async () => (await responses.create({ model, input: '안녕' })).output_text,
    };
  },
  async anthropic({ apiKey, maxRetries, timeout }) {
    const { default: Anthropic } = await import('@anthropic-ai/sdk');
    const anthropic = new Anthropic({ baseURL: url, apiKey, maxRetries, timeout });
    const asked = { model, messages, max_tokens: 16 };
    return {
      async *stream() {
        for await (const event of await anthropic.messages.create({ ...asked, stream: true })) {
          if (event.type === 'content_block_delta') yield event.delta.text;
        }
      },
      plain: async () => (await anthropic.messages.create(asked)).content[0].text,
    };
  },
  async ai({ apiKey, timeout }) {
    const { embedMany, generateObject, generateText, jsonSchema, streamText } = await import('ai');
    const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
    const provider = createOpenAICompatible({
      name: 'ollama', baseURL: `${url}/v1`, apiKey, supportsStructuredOutputs: true,
    });
    // It asks again after every 500, whatever x-should-retry says.
    const asked = () => ({ model: provider(model), messages, maxRetries: 0, abortSignal: AbortSignal.timeout(timeout) });
    return {
      async *stream() {
        const stop = new AbortController();
        const { fullStream } = streamText({ ...asked(), abortSignal: stop.signal, onError() {} });
        try {
          for await (const part of fullStream) {
            if (part.type === 'text-delta') yield part.text;
            if (part.type === 'error') throw part.error instanceof Error ? part.error : new Error(JSON.stringify(part.error));
          }
        } finally {
          stop.abort();
        }
      },
      plain: async () => (await generateText(asked())).text,
      async tool() {
        const tools = { weather: { inputSchema: jsonSchema(parameters) } };
        const { toolCalls: [call] } = await generateText({ ...asked(), tools });
        return [call.toolName, call.input];
      },
      parse: async () => (await generateObject({ ...asked(), schema: jsonSchema(schema) })).object.capital,
      async embed() {
        const { embeddings } = await embedMany({ model: provider.embeddingModel(model), values: ['hello', '안녕'] });
        return embeddings.map((embedding) => embedding.length);
      },
    };
  },
};

const sdk = ({ apiKey = givenKey, maxRetries = 2, timeout = PATIENCE_MS } = {}) =>
  sdks[client]({ apiKey, maxRetries, timeout });

const table = {
  plain: async () => (await sdk()).plain(),
  async stream() {
    let text = '';
    for await (const part of (await sdk()).stream()) text += part;
    return text;
  },
  async cancel() {
    for await (const part of (await sdk()).stream()) return part;
  },
  late: async () => (await sdk({ maxRetries: 0, timeout: 1000 })).plain(),
  once: async () => (await sdk({ maxRetries: 0 })).plain(),
  stranger: async () => (await sdk({ apiKey: 'owa_wrong', maxRetries: 0 })).plain(),
  tool: async () => (await sdk()).tool(),
  parse: async () => (await sdk()).parse(),
  embed: async () => (await sdk()).embed(),
};

const results = [];
for (const call of calls) {
  try {
    results.push({ value: await table[call]() });
  } catch (error) {
    const status = error.status ?? error.statusCode ?? null;
    const kind = error.name === 'Error' ? error.constructor.name : error.name;
    results.push({ error: String(error.message ?? error), kind, status });
  }
}
console.log(JSON.stringify(results));
