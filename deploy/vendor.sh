#!/usr/bin/env bash
# Fetches the chat page's third-party files from the npm packages pinned here by hash.
# To update one: npm view NAME@VERSION dist.integrity
set -euo pipefail
cd "$(dirname "$0")/../handlers/static/vendor"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# vendor PACKAGE@VERSION INTEGRITY FILE...: puts the files, and the licence, into a folder of that name
vendor() {
    local package=$1 integrity=$2 archive folder
    shift 2
    archive=$work/$(npm pack --silent --pack-destination "$work" "$package" 2>/dev/null | tail -n 1)
    if [ "sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)" != "$integrity" ]; then
        echo "$package does not match its pinned hash" >&2
        exit 1
    fi
    folder=${package#@} folder=${folder%@*} folder=${folder%%/*}
    rm -rf "$folder"
    mkdir "$folder"
    tar -xzf "$archive" -C "$work"
    (cd "$work/package" && cp "$@" LICEN[CS]E "$OLDPWD/$folder/")
    chmod 644 "$folder"/*
    rm -rf "$work"/*
    echo "$package: $(ls "$folder" | tr '\n' ' ')"
}

vendor marked@18.2.1 \
    sha512-ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA== \
    lib/marked.esm.js
vendor dompurify@3.4.18 \
    sha512-ofe3wI/uNm68HInABYFJYqQxRw1EaKAjNdrFVKqjUY+UZurvNd2L/HuQe097s/4RivWiZyP6tT7aoT8atjfhwg== \
    dist/purify.es.mjs
vendor @highlightjs/cdn-assets@11.12.0 \
    sha512-KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw== \
    es/highlight.min.js
vendor idb-keyval@6.3.0 \
    sha512-um+2dgAWmYsu615EXpWVwSmapJhON0G43t3Ka/EVaohzPQXSMqKEqeDK/oIW3Ow+BXaF2PvSc+oBTFp793A5Ow== \
    dist/index.js
