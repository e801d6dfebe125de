"""An operator's remedies for errors: libraries raise facts and know no option."""

from actvec.server.errors import StartupError

# By the setting at fault, if its option alone is not the advice.
_ADVICE = {
    "host": (
        "give tokens (--token-file FILE or ACTVEC_TOKEN) or --tls-client-ca "
        "FILE, or --insecure to let everybody call"
    ),
    "hook": "add --engine lens",
    "port": "choose another --port, or 0 for a free one",
    "metrics_port": "choose another --metrics-port, or 0 for a free one",
    "tls_cert": "give both --tls-cert and --tls-key",
    "adapter": "name the model with --model, and the adapter with --adapter",
    "context": "give the number, for example --context 2048",
    "positions": "set a smaller --context, or drop the option",
    "step_tokens": "set a smaller --step-tokens, or drop the option",
    "document_tokens": "set a smaller --document-tokens, or free memory",
    "connections": "raise its limit (ulimit -Hn, LimitNOFILE=), or set fewer --connections",
}


def explained(error: StartupError) -> str:
    """Explain why the server cannot start, with the option to change."""
    if not error.setting:
        return str(error)
    advice = _ADVICE.get(error.setting)
    return f"{error}; {advice}" if advice else f"{error} (--{error.setting.replace('_', '-')})"
