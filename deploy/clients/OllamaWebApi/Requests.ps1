# How the module asks: not exported, and not to be called from elsewhere.

Add-Type -AssemblyName System.Net.Http

# The clients, by the proxy that they use; each keeps its connections.
$script:Clients = @{}

# Sends a request and returns what its answer says; throws an exception whose text is for users.
function Request-Answer {
    param(
        [string] $BaseUri,
        [string] $Path,
        [System.Collections.IDictionary] $Body,
        [object] $ApiKey,
        [int] $TimeoutSec,
        [int] $OperationTimeoutSeconds = $TimeoutSec,
        [uri] $Proxy,
        [System.Management.Automation.PSCredential] $ProxyCredential,
        [switch] $ProxyUseDefaultCredentials,
        [switch] $NoProxy,
        [switch] $Stream
    )

    $client = Get-Client $Proxy $ProxyCredential $ProxyUseDefaultCredentials $NoProxy
    $response = Send-Request $client $BaseUri $Path $Body $ApiKey $TimeoutSec
    try {
        if (-not $response.IsSuccessStatusCode) {
            throw (ConvertTo-ServerException $response $OperationTimeoutSeconds)
        }
        if ($Stream) {
            Read-Stream $response $OperationTimeoutSeconds
        }
        else {
            $reading = $response.Content.ReadAsStringAsync()
            ConvertFrom-Json -InputObject (Wait-Task $reading $OperationTimeoutSeconds)
        }
    }
    finally {
        # For an unfinished stream, this closes the connection, which stops the model.
        $response.Dispose()
    }
}

function Get-Client {
    param($Proxy, $ProxyCredential, $ProxyUseDefaultCredentials, $NoProxy)

    if ($NoProxy -and $Proxy) {
        throw [System.ArgumentException]::new('-Proxy and -NoProxy exclude each other.')
    }
    if (($ProxyCredential -or $ProxyUseDefaultCredentials) -and -not $Proxy) {
        throw [System.ArgumentException]::new('Credentials for a proxy need -Proxy.')
    }
    $name = "$NoProxy $Proxy"
    if (-not $script:Clients.ContainsKey($name)) {
        $handler = [System.Net.Http.HttpClientHandler]::new()
        $handler.UseProxy = -not $NoProxy
        if ($Proxy) { $handler.Proxy = [System.Net.WebProxy]::new($Proxy) }
        $client = [System.Net.Http.HttpClient]::new($handler)
        # Each request has a limit of its own.
        $client.Timeout = [System.Threading.Timeout]::InfiniteTimeSpan
        # .NET Framework would hold back each body until the server asks for it.
        $client.DefaultRequestHeaders.ExpectContinue = $false
        $script:Clients[$name] = @{ Client = $client; Proxy = $handler.Proxy }
    }
    $entry = $script:Clients[$name]
    if ($Proxy) {
        $credentials = $null
        if ($ProxyUseDefaultCredentials) {
            $credentials = [System.Net.CredentialCache]::DefaultCredentials
        }
        if ($ProxyCredential) { $credentials = $ProxyCredential.GetNetworkCredential() }
        $entry.Proxy.Credentials = $credentials
    }
    $entry.Client
}

function Send-Request {
    param($Client, $BaseUri, $Path, $Body, $ApiKey, $TimeoutSec)

    $method = [System.Net.Http.HttpMethod]::Get
    if ($null -ne $Body) { $method = [System.Net.Http.HttpMethod]::Post }
    $uri = $BaseUri.TrimEnd('/') + $Path
    $request = [System.Net.Http.HttpRequestMessage]::new($method, $uri)
    if ($null -ne $Body) {
        # Without -Depth, what is deeper than two levels would become the name of its type.
        $json = ConvertTo-Json -InputObject $Body -Depth 100 -Compress
        $utf8 = [System.Text.Encoding]::UTF8
        $request.Content = [System.Net.Http.StringContent]::new($json, $utf8, 'application/json')
    }
    $key = ConvertTo-Key $ApiKey
    if ($key) {
        $bearer = [System.Net.Http.Headers.AuthenticationHeaderValue]::new('Bearer', $key)
        $request.Headers.Authorization = $bearer
    }

    $limit = [System.Threading.CancellationTokenSource]::new()
    $headersRead = [System.Net.Http.HttpCompletionOption]::ResponseHeadersRead
    $response = $null
    try {
        $response = Wait-Task ($Client.SendAsync($request, $headersRead, $limit.Token)) $TimeoutSec
    }
    catch [System.TimeoutException] {
        throw [System.TimeoutException]::new("No answer from $uri within $TimeoutSec seconds")
    }
    catch {
        $reason = $_.Exception.GetBaseException().Message
        throw [System.Net.Http.HttpRequestException]::new("No answer from ${uri}: $reason")
    }
    finally {
        # Ctrl+C ends here as well; the server must not keep working for nobody.
        if ($null -eq $response) { $limit.Cancel() }
        $limit.Dispose()
    }
    $response
}

# The key to send: the one given, or the environment's.
function ConvertTo-Key {
    param($ApiKey)

    if (-not $ApiKey) { $ApiKey = $env:OLLAMA_WEB_API_KEY }
    if ($ApiKey -is [System.Security.SecureString]) {
        $ApiKey = [System.Net.NetworkCredential]::new('', $ApiKey).Password
    }
    # A key from a file often ends with a line break.
    if ($ApiKey) { $ApiKey.Trim() }
}

# Messages of plain strings: Windows PowerShell would send along any properties added to others.
function ConvertTo-Message {
    param($Messages)

    foreach ($message in $Messages) {
        $plain = @{ role = "$($message.role)"; content = "$($message.content)" }
        if ($message.images) {
            $plain['images'] = @($message.images | ForEach-Object { $_.ToString() })
        }
        $plain
    }
}

function ConvertTo-Base64 {
    param($File)

    [System.Convert]::ToBase64String([System.IO.File]::ReadAllBytes($File))
}

function ConvertTo-Format {
    param($Format)

    if (($Format -isnot [string]) -or ($Format -eq 'json')) { return $Format }
    try {
        ConvertFrom-Json -InputObject $Format
    }
    catch {
        throw [System.ArgumentException]::new('-Format is neither json nor a JSON schema.')
    }
}

function ConvertTo-Think {
    param($Think)

    switch ($Think) {
        'true' { $true }
        'false' { $false }
        default { $Think.ToLowerInvariant() }
    }
}

# Shows the words as they arrive, and returns the last line, with all of them in its response.
function Read-Stream {
    param($Response, $SilenceSec)

    $bytes = Wait-Task ($Response.Content.ReadAsStreamAsync()) $SilenceSec
    $reader = [System.IO.StreamReader]::new($bytes, [System.Text.Encoding]::UTF8)
    $words = [System.Text.StringBuilder]::new()
    try {
        do {
            $text = Wait-Task ($reader.ReadLineAsync()) $SilenceSec
            if ($null -eq $text) {
                throw [System.IO.EndOfStreamException]::new('The answer was cut off.')
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

# Returns a task's result. Windows PowerShell can be stopped between two waits, but not during one.
function Wait-Task {
    param($Task, $Seconds)

    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    while (-not $Task.AsyncWaitHandle.WaitOne(100)) {
        if ($watch.Elapsed.TotalSeconds -ge $Seconds) {
            throw [System.TimeoutException]::new(
                "The answer was cut off: nothing arrived for $Seconds seconds.")
        }
    }
    $Task.GetAwaiter().GetResult()
}

function ConvertTo-ServerException {
    param($Response, $SilenceSec)

    $status = [int] $Response.StatusCode
    $text = Wait-Task ($Response.Content.ReadAsStringAsync()) $SilenceSec
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
    if ($cause -is [System.TimeoutException]) { $category = 'OperationTimeout' }
    if ($cause -is [System.ArgumentException]) { $category = 'InvalidArgument' }
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
