@{
    RootModule = 'OllamaWebApi.psm1'
    ModuleVersion = '0.1.0'
    GUID = '333a6281-7db0-4ef4-b7fd-79bb46660556'
    Author = 'The maintainers of Ollama Web API'
    CompanyName = 'Ollama Web API'
    Copyright = 'MIT licence'
    Description = 'Asks an Ollama Web API server: chats, streams, models and health.'
    PowerShellVersion = '5.1'
    CompatiblePSEditions = @('Desktop', 'Core')
    FunctionsToExport = @('Get-OllamaModel', 'Invoke-OllamaChat', 'Test-OllamaHealth')
    CmdletsToExport = @()
    VariablesToExport = @()
    AliasesToExport = @()
}
