# Asks an Ollama Web API server, in Windows PowerShell 5.1 and in PowerShell 7.
# It keeps to the syntax of 5.1, and to what .NET Framework 4.5.2 has.

Add-Type -AssemblyName System.Net.Http

# One client keeps its connections. It has no time limit, for each request has one of its own.
$script:Client = [System.Net.Http.HttpClient]::new()
$script:Client.Timeout = [System.Threading.Timeout]::InfiniteTimeSpan
# .NET Framework would hold each body back until the server has asked for it.
$script:Client.DefaultRequestHeaders.ExpectContinue = $false

function Invoke-OllamaChat {
    <#
    .SYNOPSIS
    Asks a model something, and returns its answer.

    .DESCRIPTION
    Sends each message to a model as a conversation of its own, unless -Context continues one.
    The text is sent as UTF-8 on every version of PowerShell.

    The output is what the server has answered: "response" is the text, "context" is the
    conversation so far, and "done_reason" and "eval_count" tell how the answer ended.

    A message that fails is an error of its own, and the next one is still sent. The error says
    what the server said. Its Exception.Data has the server's StatusCode and, when the server is
    busy, RetryAfter: the seconds to wait. An answer that breaks off is an error too, and never
    output. Ctrl+C ends the wait, and the model's work.

    .PARAMETER Message
    What to say to the model.

    .PARAMETER Model
    An installed model, as Get-OllamaModel lists them; the server's default if absent.

    .PARAMETER System
    A system prompt: what the model shall keep in mind.

    .PARAMETER Context
    The context of the answer that the conversation goes on from.

    .PARAMETER Stream
    Shows the words as they come. The output is still the whole answer, after the last word:
    assign it to a variable, or send it to Out-Null.

    .PARAMETER ApiKey
    The API key, or the JSON web token, if the server wants one.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER TimeoutSec
    Seconds to wait for the answer, or for its first word with -Stream. The server itself gives
    up after 300 unless it is set up otherwise.

    .EXAMPLE
    (Invoke-OllamaChat '안녕하세요!').response

    Asks the server's default model.

    .EXAMPLE
    $answer = Invoke-OllamaChat 'Tell me a story.' -Model llama3.1:8b -Stream

    Shows the story while it is written, and keeps it.

    .EXAMPLE
    $first = Invoke-OllamaChat 'My name is Kim.'
    (Invoke-OllamaChat 'What is my name?' -Context $first.context).response

    Goes on with a conversation.

    .EXAMPLE
    Get-ChildItem *.txt | Get-Content -Raw -Encoding UTF8 | Invoke-OllamaChat -System 'Sum up.'

    Sends the text of each file.

    .EXAMPLE
    try { Invoke-OllamaChat 'Hello' -ErrorAction Stop }
    catch { "$($_.Exception.Data['StatusCode']): $($_.Exception.Message)" }

    Handles an error, such as "401: ..." from a server that wants a key.

    .EXAMPLE
    $PSDefaultParameterValues['*-Ollama*:BaseUri'] = 'https://ollama.example.com'
    $PSDefaultParameterValues['*-Ollama*:ApiKey'] = Read-Host 'API key' -AsSecureString

    Names the server and the key once, for every function of this module.
    #>
    [CmdletBinding(PositionalBinding = $false)]
    [OutputType([psobject])]
    param(
        [Parameter(Mandatory = $true, Position = 0, ValueFromPipeline = $true)]
        [string] $Message,

        [string] $Model,

        [string] $System,

        [int[]] $Context,

        [switch] $Stream,

        [System.Security.SecureString] $ApiKey,

        [string] $BaseUri = 'http://127.0.0.1:5000',

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 330
    )

    process {
        # Get-Content hangs notes on its strings, such as the path, that 5.1 would send along.
        $body = @{ message = $Message.ToString() }
        if ($Model) { $body['model'] = $Model.ToString() }
        if ($System) { $body['system'] = $System.ToString() }
        if ($null -ne $Context) { $body['context'] = $Context }

        $call = @{ BaseUri = $BaseUri; Body = $body; ApiKey = $ApiKey; TimeoutSec = $TimeoutSec }
        try {
            if ($Stream) {
                $answer = Request-Answer @call -Path '/api/chat/stream' -Stream
            }
            else {
                $answer = Request-Answer @call -Path '/api/chat'
            }
        }
        catch {
            $PSCmdlet.WriteError((ConvertTo-ErrorRecord $_.Exception $Message))
            return
        }
        # Not within the try: it would catch what later commands of the pipeline throw.
        $answer
    }
}

function Get-OllamaModel {
    <#
    .SYNOPSIS
    Returns the names of the installed models.

    .DESCRIPTION
    Returns the name of each model that Ollama has installed, in Ollama's own order, and nothing
    if there is none. With a key that is for some models only, it returns those.

    .PARAMETER ApiKey
    The API key, or the JSON web token, if the server wants one.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER TimeoutSec
    Seconds to wait for the answer.

    .EXAMPLE
    Get-OllamaModel

    Returns the names, such as llama3.1:8b.

    .EXAMPLE
    Get-OllamaModel | ForEach-Object { Invoke-OllamaChat 'Hello!' -Model $_ }

    Greets every model.
    #>
    [CmdletBinding(PositionalBinding = $false)]
    [OutputType([string])]
    param(
        [System.Security.SecureString] $ApiKey,

        [string] $BaseUri = 'http://127.0.0.1:5000',

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 30
    )

    $call = @{ BaseUri = $BaseUri; ApiKey = $ApiKey; TimeoutSec = $TimeoutSec }
    try {
        $answer = Request-Answer @call -Path '/api/models'
    }
    catch {
        $PSCmdlet.ThrowTerminatingError((ConvertTo-ErrorRecord $_.Exception $BaseUri))
    }
    $answer.models
}

function Test-OllamaHealth {
    <#
    .SYNOPSIS
    Tells whether the server and its Ollama work.

    .DESCRIPTION
    Returns $true if the server answers and reaches Ollama, and $false if not. It loads no model
    and needs no key. With -Verbose it says what is wrong.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER TimeoutSec
    Seconds to wait for the answer.

    .EXAMPLE
    if (-not (Test-OllamaHealth)) { throw 'Ollama is not there.' }

    Stops a script that would have nobody to ask.

    .EXAMPLE
    Test-OllamaHealth -BaseUri http://192.168.1.20:5000 -Verbose

    Says what is wrong with a server elsewhere.
    #>
    [CmdletBinding(PositionalBinding = $false)]
    [OutputType([bool])]
    param(
        [string] $BaseUri = 'http://127.0.0.1:5000',

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 3
    )

    try {
        $health = Request-Answer -BaseUri $BaseUri -Path '/api/health' -TimeoutSec $TimeoutSec
        $status = $health.status
        $ollama = $health.ollama_status
    }
    catch {
        $reason = $_.Exception.GetBaseException().Message
        Write-Verbose -Message $reason
        return $false
    }
    Write-Verbose -Message "The server's status is $status, and its Ollama is $ollama."
    ($status -eq 'ok') -and ($ollama -eq 'connected')
}

# Sends a request and returns what its answer says; throws an exception whose text is for users.
function Request-Answer {
    param(
        [string] $BaseUri,
        [string] $Path,
        [System.Collections.IDictionary] $Body,
        [System.Security.SecureString] $ApiKey,
        [int] $TimeoutSec,
        [switch] $Stream
    )

    $response = Send-Request $BaseUri $Path $Body $ApiKey $TimeoutSec
    try {
        if (-not $response.IsSuccessStatusCode) {
            throw (ConvertTo-ServerException $response)
        }
        if ($Stream) {
            Read-Stream $response
        }
        else {
            ConvertFrom-Json -InputObject (Wait-Task ($response.Content.ReadAsStringAsync()))
        }
    }
    finally {
        # Of a stream that has not ended, this closes the connection: then the model stops too.
        $response.Dispose()
    }
}

function Send-Request {
    param($BaseUri, $Path, $Body, $ApiKey, $TimeoutSec)

    $method = [System.Net.Http.HttpMethod]::Get
    if ($null -ne $Body) { $method = [System.Net.Http.HttpMethod]::Post }
    $uri = $BaseUri.TrimEnd('/') + $Path
    $request = [System.Net.Http.HttpRequestMessage]::new($method, $uri)
    if ($null -ne $Body) {
        $json = ConvertTo-Json -InputObject $Body -Compress
        $utf8 = [System.Text.Encoding]::UTF8
        $request.Content = [System.Net.Http.StringContent]::new($json, $utf8, 'application/json')
    }
    if ($null -ne $ApiKey) {
        $key = [System.Net.NetworkCredential]::new('', $ApiKey).Password
        $bearer = [System.Net.Http.Headers.AuthenticationHeaderValue]::new('Bearer', $key)
        $request.Headers.Authorization = $bearer
    }

    $seconds = [System.TimeSpan]::FromSeconds($TimeoutSec)
    $limit = [System.Threading.CancellationTokenSource]::new($seconds)
    $headersRead = [System.Net.Http.HttpCompletionOption]::ResponseHeadersRead
    $response = $null
    try {
        $sending = $script:Client.SendAsync($request, $headersRead, $limit.Token)
        $response = Wait-Task $sending
    }
    catch {
        if ($limit.IsCancellationRequested) {
            throw [System.TimeoutException]::new("No answer from $uri within $TimeoutSec seconds")
        }
        $reason = $_.Exception.GetBaseException().Message
        throw [System.Net.Http.HttpRequestException]::new("No answer from ${uri}: $reason")
    }
    finally {
        # Ctrl+C comes here as well; the server must not work on for nobody.
        if ($null -eq $response) { $limit.Cancel() }
        $limit.Dispose()
    }
    $response
}

# Shows the words as they come, and returns the last line, with all of them in its response.
function Read-Stream {
    param($Response)

    $bytes = Wait-Task ($Response.Content.ReadAsStreamAsync())
    $reader = [System.IO.StreamReader]::new($bytes, [System.Text.Encoding]::UTF8)
    $words = [System.Text.StringBuilder]::new()
    try {
        do {
            $text = Wait-Task ($reader.ReadLineAsync())
            if ($null -eq $text) {
                throw [System.IO.EndOfStreamException]::new('The answer has broken off.')
            }
            $line = ConvertFrom-Json -InputObject $text
            if ($line.PSObject.Properties['error']) {
                throw [System.Net.Http.HttpRequestException]::new($line.error)
            }
            [void] $words.Append($line.response)
            Write-Host -Object $line.response -NoNewline
        } until ($line.done)
    }
    finally {
        Write-Host -Object ''
    }
    $line.response = $words.ToString()
    $line
}

# Returns a task's result. Windows PowerShell can be stopped between two waits, but not in one.
function Wait-Task {
    param($Task)

    while (-not $Task.AsyncWaitHandle.WaitOne(100)) { }
    $Task.GetAwaiter().GetResult()
}

function ConvertTo-ServerException {
    param($Response)

    $status = [int] $Response.StatusCode
    $text = Wait-Task ($Response.Content.ReadAsStringAsync())
    try {
        $message = (ConvertFrom-Json -InputObject $text).error
    }
    catch {
        $message = $null
    }
    if (-not $message) {
        $message = "HTTP $status $($Response.ReasonPhrase), and not from an Ollama Web API server"
    }
    $exception = [System.Net.Http.HttpRequestException]::new($message)
    $exception.Data['StatusCode'] = $status
    $retryAfter = $Response.Headers.RetryAfter
    if (($null -ne $retryAfter) -and ($null -ne $retryAfter.Delta)) {
        $exception.Data['RetryAfter'] = [int] $retryAfter.Delta.TotalSeconds
    }
    $exception
}

function ConvertTo-ErrorRecord {
    param([System.Exception] $Exception, $Target)

    $cause = $Exception.GetBaseException()
    [System.Management.Automation.ErrorCategory] $category = 'ConnectionError'
    if ($cause -is [System.TimeoutException]) {
        $category = 'OperationTimeout'
    }
    switch ($cause.Data['StatusCode']) {
        400 { $category = 'InvalidArgument' }
        401 { $category = 'AuthenticationError' }
        403 { $category = 'PermissionDenied' }
        404 { $category = 'ObjectNotFound' }
        413 { $category = 'LimitsExceeded' }
        429 { $category = 'LimitsExceeded' }
        500 { $category = 'InvalidResult' }
        503 { $category = 'ResourceUnavailable' }
        504 { $category = 'OperationTimeout' }
    }
    [System.Management.Automation.ErrorRecord]::new($cause, 'OllamaWebApi', $category, $Target)
}
