# Calls an Ollama Web API server without a module, in Windows PowerShell 5.1 and in PowerShell 7.
# Copy the lines you need. Save your own scripts with Korean text like this one: UTF-8 with BOM.
param([string] $BaseUri = 'http://127.0.0.1:5000')

# Is it there, and what is installed?
Invoke-RestMethod -Uri "$BaseUri/api/health" -TimeoutSec 3
(Invoke-RestMethod -Uri "$BaseUri/api/models").models

# A question. Without the charset, PowerShell before 7.4 sends every letter of Hangul as "?".
$json = 'application/json; charset=utf-8'
$body = @{ message = '안녕하세요!' } | ConvertTo-Json
$answer = Invoke-RestMethod -Uri "$BaseUri/api/chat" -Method Post -Body $body -ContentType $json
$answer.response

# The next question of the same conversation, to a model of your choice, with a system prompt.
$body = @{
    message = '한 문장으로 더 설명해 주세요.'
    model = 'llama3.1:70b'
    system = 'Answer in Korean.'
    context = $answer.context
} | ConvertTo-Json
(Invoke-RestMethod -Uri "$BaseUri/api/chat" -Method Post -Body $body -ContentType $json).response

# A conversation that you keep yourself, with options, and an answer for programs.
# Without -Depth, ConvertTo-Json replaces anything deeper than two levels with its type's name.
$body = @{
    messages = @(
        @{ role = 'user'; content = '한국의 수도는 어디입니까?' }
        @{ role = 'assistant'; content = '서울입니다.' }
        @{ role = 'user'; content = '인구는 몇 명입니까?' }
    )
    options = @{ temperature = 0; num_predict = 100 }
    format = @{ type = 'object'; properties = @{ people = @{ type = 'integer' } } }
} | ConvertTo-Json -Depth 10
(Invoke-RestMethod -Uri "$BaseUri/api/chat" -Method Post -Body $body -ContentType $json).response

# The same with bytes that you encode yourself, which no version changes.
$bytes = [System.Text.Encoding]::UTF8.GetBytes((@{ message = '안녕하세요!' } | ConvertTo-Json))
(Invoke-RestMethod -Uri "$BaseUri/api/chat" -Method Post -Body $bytes -ContentType $json).response

# A stream. Invoke-RestMethod returns it at its end, as one string of JSON lines.
# To see the words as they arrive: Invoke-OllamaChat -Stream, from the module OllamaWebApi.
$body = @{ message = '이야기를 하나 해 주세요.' } | ConvertTo-Json
$stream = Invoke-RestMethod -Uri "$BaseUri/api/chat/stream" -Method Post -Body $body -ContentType $json
$lines = @($stream)
if ($stream -is [string]) {
    $lines = @($stream -split '\r?\n' | Where-Object { $_ } | ForEach-Object { ConvertFrom-Json $_ })
}
if ($lines[-1].error) { throw $lines[-1].error }
if (-not $lines[-1].done) { throw 'The answer was cut off.' }
-join $lines.response

# An error, with the server's own words.
$body = @{ message = '안녕하세요!'; model = 'no-such-model' } | ConvertTo-Json
try {
    Invoke-RestMethod -Uri "$BaseUri/api/chat" -Method Post -Body $body -ContentType $json
}
catch {
    if (-not $_.ErrorDetails) { throw }
    Write-Warning ($_.ErrorDetails.Message | ConvertFrom-Json).error
}

# A key, from the environment rather than the script.
if ($env:OLLAMA_WEB_API_KEY) {
    $headers = @{ Authorization = "Bearer $env:OLLAMA_WEB_API_KEY" }
    (Invoke-RestMethod -Uri "$BaseUri/api/models" -Headers $headers).models
}
