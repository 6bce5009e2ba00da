"""The process that `LlamaServer` starts: llama.cpp's server on loopback, until its parent closes its standard input.

It is run as a file, and imports nothing of the lab, so it starts in a second. It prints one line, the server's address,
as soon as that answers; the log of llama.cpp goes to standard error.
"""

import json
import sys


def main(options: dict) -> None:
    """Serve until standard input ends, which it does when the parent process is gone, however that happened."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in options["adapters"]]
    params.hostnames, params.port = ["127.0.0.1"], 0  # any port that is free
    params.n_ctx, params.n_parallel, params.warmup = options["context"], 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.ui = False  # no page for browsers
    if options["chat_template"]:
        params.chat_template = options["chat_template"]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
