@{
    RootModule = 'OllamaWebApi.psm1'
    ModuleVersion = '0.2.0'
    GUID = '333a6281-7db0-4ef4-b7fd-79bb46660556'
    Author = 'The maintainers of Ollama Web API'
    CompanyName = 'Ollama Web API'
    Copyright = 'MIT licence'
    Description = 'Calls an Ollama Web API server: chats, streams, models and health.'
    PowerShellVersion = '5.1'
    CompatiblePSEditions = @('Desktop', 'Core')
    FunctionsToExport = @('Get-OllamaModel', 'Invoke-OllamaChat', 'Test-OllamaHealth')
    CmdletsToExport = @()
    VariablesToExport = @()
    AliasesToExport = @()
    FileList = @('OllamaWebApi.psd1', 'OllamaWebApi.psm1', 'Requests.ps1')
    PrivateData = @{
        PSData = @{
            Tags = @('Ollama', 'LLM', 'Chat', 'REST', 'PSEdition_Desktop', 'PSEdition_Core',
                'Windows', 'Linux', 'MacOS')
            ReleaseNotes = 'Messages, options, formats, images and thinking; keys from the environment; proxies.'
        }
    }
}
