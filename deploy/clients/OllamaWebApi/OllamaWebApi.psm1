# Calls an Ollama Web API server, in Windows PowerShell 5.1 and in PowerShell 7.
# It is limited to the syntax of 5.1, and to .NET Framework 4.5.2.

. "$PSScriptRoot/Requests.ps1"

function Invoke-OllamaChat {
    <#
    .SYNOPSIS
    Asks a model something, and returns its answer.

    .DESCRIPTION
    Sends each message to a model as a conversation of its own, unless -Context continues one.
    The text is sent as UTF-8 on every version of PowerShell.

    The output is the server's answer: "response" is the text, "context" is the conversation so
    far, and "done_reason" and "eval_count" say how the answer ended.

    Each message that fails writes its own error, and the next one is still sent. The error has
    the server's text. Its Exception.Data has the server's StatusCode and, when the server is
    busy, RetryAfter: the seconds to wait. An answer that breaks off is an error too, and never
    output. Ctrl+C ends the wait, and stops the model.

    .PARAMETER Message
    What to say to the model.

    .PARAMETER Model
    An installed model, as listed by Get-OllamaModel; the server's default if absent.

    .PARAMETER System
    A system prompt: what the model should keep in mind.

    .PARAMETER Context
    The context of an earlier answer, to continue that conversation.

    .PARAMETER Messages
    The whole conversation, in place of a message and a context: objects or hashtables with a
    role (system, user or assistant), the content and, if there are any, images in base64. The
    last one is the user's.

    .PARAMETER Image
    Image files that go with the message, for a vision model.

    .PARAMETER Options
    Sampling options, such as @{ temperature = 0; num_predict = 100 }.

    .PARAMETER Format
    The format of the answer: json, or a JSON schema as a hashtable or as JSON text.

    .PARAMETER Think
    Whether, or how much, a reasoning model should think: $true, low, medium or high. Its
    thoughts are the output's "thinking".

    .PARAMETER Stream
    Shows the words as they arrive. The output is still the whole answer, after the last word:
    assign it to a variable, or send it to Out-Null.

    .PARAMETER ApiKey
    The API key, or the JSON web token, if the server requires one: a SecureString or a string. If
    absent, the environment's OLLAMA_WEB_API_KEY.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER Proxy
    The proxy on the way to the server, in place of the system's.

    .PARAMETER ProxyCredential
    The user name and the password that the proxy requires.

    .PARAMETER ProxyUseDefaultCredentials
    Shows the proxy the current user's own credentials.

    .PARAMETER NoProxy
    Uses no proxy at all, not even the system's.

    .PARAMETER TimeoutSec
    Seconds to wait for the answer, or for its first word with -Stream. The server itself gives
    up after 300 unless it is set up otherwise.

    .PARAMETER OperationTimeoutSeconds
    Seconds of silence after which an answer that has begun counts as cut off.

    .EXAMPLE
    (Invoke-OllamaChat '안녕하세요!').response

    Asks the server's default model.

    .EXAMPLE
    $answer = Invoke-OllamaChat 'Tell me a story.' -Model llama3.1:8b -Stream

    Shows the story as it is written, and keeps it.

    .EXAMPLE
    $first = Invoke-OllamaChat 'My name is Kim.'
    (Invoke-OllamaChat 'What is my name?' -Context $first.context).response

    Continues a conversation.

    .EXAMPLE
    $talk = @(@{ role = 'user'; content = 'My name is Kim.' })
    $talk += @{ role = 'assistant'; content = (Invoke-OllamaChat -Messages $talk).response }
    $talk += @{ role = 'user'; content = 'What is my name?' }
    (Invoke-OllamaChat -Messages $talk -Options @{ temperature = 0 }).response

    Keeps the conversation itself.

    .EXAMPLE
    $schema = '{"type": "object", "properties": {"capital": {"type": "string"}}}'
    $answer = Invoke-OllamaChat 'What is the capital of Korea?' -Format $schema
    ($answer.response | ConvertFrom-Json).capital

    Gets the answer in a format for programs.

    .EXAMPLE
    (Invoke-OllamaChat 'What is this?' -Image ./photo.jpg -Model llama3.2-vision).response

    Asks about an image.

    .EXAMPLE
    Get-ChildItem *.txt | Get-Content -Raw -Encoding UTF8 | Invoke-OllamaChat -System 'Sum up.'

    Sends the text of each file.

    .EXAMPLE
    try { Invoke-OllamaChat 'Hello' -ErrorAction Stop }
    catch { "$($_.Exception.Data['StatusCode']): $($_.Exception.Message)" }

    Handles an error, such as "401: ..." from a server that requires a key.

    .EXAMPLE
    $PSDefaultParameterValues['*-Ollama*:BaseUri'] = 'https://ollama.example.com'
    $PSDefaultParameterValues['*-Ollama*:Proxy'] = 'http://proxy.example.com:3128'
    $PSDefaultParameterValues['*-Ollama*:ApiKey'] = Read-Host 'API key' -AsSecureString

    Sets the server, the proxy and the key once, for every function of this module.
    #>
    [CmdletBinding(PositionalBinding = $false, DefaultParameterSetName = 'Message')]
    [OutputType([psobject])]
    param(
        [Parameter(ParameterSetName = 'Message', Mandatory = $true, Position = 0,
            ValueFromPipeline = $true)]
        [string] $Message,

        [string] $Model,

        [string] $System,

        [Parameter(ParameterSetName = 'Message')]
        [int[]] $Context,

        [Parameter(ParameterSetName = 'Messages', Mandatory = $true)]
        [object[]] $Messages,

        [Parameter(ParameterSetName = 'Message')]
        [string[]] $Image,

        [System.Collections.IDictionary] $Options,

        [object] $Format,

        [ValidateSet('true', 'false', 'low', 'medium', 'high')]
        [string] $Think,

        [switch] $Stream,

        [ValidateScript({ ($_ -is [string]) -or ($_ -is [System.Security.SecureString]) })]
        [object] $ApiKey,

        [string] $BaseUri = 'http://127.0.0.1:5000',

        [uri] $Proxy,

        [System.Management.Automation.PSCredential] $ProxyCredential,

        [switch] $ProxyUseDefaultCredentials,

        [switch] $NoProxy,

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 330,

        [ValidateRange(1, 86400)]
        [int] $OperationTimeoutSeconds = 330
    )

    process {
        $call = @{
            BaseUri = $BaseUri; ApiKey = $ApiKey; TimeoutSec = $TimeoutSec
            OperationTimeoutSeconds = $OperationTimeoutSeconds
            Proxy = $Proxy; ProxyCredential = $ProxyCredential
            ProxyUseDefaultCredentials = $ProxyUseDefaultCredentials; NoProxy = $NoProxy
        }
        try {
            # Get-Content adds properties to its strings, such as the path, that 5.1 would send along.
            $body = @{}
            if ($PSCmdlet.ParameterSetName -eq 'Messages') {
                $body['messages'] = @(ConvertTo-Message $Messages)
            }
            else {
                $body['message'] = $Message.ToString()
            }
            if ($Model) { $body['model'] = $Model.ToString() }
            if ($PSBoundParameters.ContainsKey('System')) { $body['system'] = $System.ToString() }
            if ($null -ne $Context) { $body['context'] = $Context }
            if ($Image) {
                $paths = @($Image | ForEach-Object {
                        $PSCmdlet.GetUnresolvedProviderPathFromPSPath($_)
                    })
                $body['images'] = @($paths | ForEach-Object { ConvertTo-Base64 $_ })
            }
            if ($null -ne $Options) { $body['options'] = $Options }
            if ($null -ne $Format) { $body['format'] = ConvertTo-Format $Format }
            if ($Think) { $body['think'] = ConvertTo-Think $Think }

            if ($Stream) {
                $answer = Request-Answer @call -Body $body -Path '/api/chat/stream' -Stream
            }
            else {
                $answer = Request-Answer @call -Body $body -Path '/api/chat'
            }
        }
        catch {
            $said = $Message
            if ($null -ne $Messages) { $said = $Messages }
            $PSCmdlet.WriteError((ConvertTo-ErrorRecord $_.Exception $said))
            return
        }
        # Not inside the try, which would catch what later commands of the pipeline throw.
        $answer
    }
}

function Get-OllamaModel {
    <#
    .SYNOPSIS
    Returns the names of the installed models.

    .DESCRIPTION
    Returns the name of each model that Ollama has installed, in Ollama's own order, and nothing
    if there is none. With a key that is limited to some models, it returns only those.

    .PARAMETER ApiKey
    The API key, or the JSON web token, if the server requires one: a SecureString or a string. If
    absent, the environment's OLLAMA_WEB_API_KEY.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER Proxy
    The proxy on the way to the server, in place of the system's.

    .PARAMETER ProxyCredential
    The user name and the password that the proxy requires.

    .PARAMETER ProxyUseDefaultCredentials
    Shows the proxy the current user's own credentials.

    .PARAMETER NoProxy
    Uses no proxy at all, not even the system's.

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
        [ValidateScript({ ($_ -is [string]) -or ($_ -is [System.Security.SecureString]) })]
        [object] $ApiKey,

        [string] $BaseUri = 'http://127.0.0.1:5000',

        [uri] $Proxy,

        [System.Management.Automation.PSCredential] $ProxyCredential,

        [switch] $ProxyUseDefaultCredentials,

        [switch] $NoProxy,

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 30
    )

    $call = @{
        BaseUri = $BaseUri; ApiKey = $ApiKey; TimeoutSec = $TimeoutSec
        Proxy = $Proxy; ProxyCredential = $ProxyCredential
        ProxyUseDefaultCredentials = $ProxyUseDefaultCredentials; NoProxy = $NoProxy
    }
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
    Tests whether the server and its Ollama work.

    .DESCRIPTION
    Returns $true if the server answers and reaches Ollama, and $false if not. It loads no model
    and needs no key. With -Verbose it says what is wrong.

    .PARAMETER BaseUri
    Where the server is.

    .PARAMETER Proxy
    The proxy on the way to the server, in place of the system's.

    .PARAMETER ProxyCredential
    The user name and the password that the proxy requires.

    .PARAMETER ProxyUseDefaultCredentials
    Shows the proxy the current user's own credentials.

    .PARAMETER NoProxy
    Uses no proxy at all, not even the system's.

    .PARAMETER TimeoutSec
    Seconds to wait for the answer.

    .EXAMPLE
    if (-not (Test-OllamaHealth)) { throw 'Ollama is not there.' }

    Stops a script if there is no server to ask.

    .EXAMPLE
    Test-OllamaHealth -BaseUri http://192.168.1.20:5000 -Verbose

    Says what is wrong with a remote server.
    #>
    [CmdletBinding(PositionalBinding = $false)]
    [OutputType([bool])]
    param(
        [string] $BaseUri = 'http://127.0.0.1:5000',

        [uri] $Proxy,

        [System.Management.Automation.PSCredential] $ProxyCredential,

        [switch] $ProxyUseDefaultCredentials,

        [switch] $NoProxy,

        [ValidateRange(1, 86400)]
        [int] $TimeoutSec = 3
    )

    $call = @{
        BaseUri = $BaseUri; TimeoutSec = $TimeoutSec
        Proxy = $Proxy; ProxyCredential = $ProxyCredential
        ProxyUseDefaultCredentials = $ProxyUseDefaultCredentials; NoProxy = $NoProxy
    }
    try {
        $health = Request-Answer @call -Path '/api/health'
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
