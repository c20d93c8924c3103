#!/usr/bin/env bash
# Installs raycls on a node: the versions of requirements.lock and nothing newer. Every file of this folder runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

chmod 600 ~/.ray/auth_token # the cluster's token; rsync keeps the mode it had
export PATH="$HOME/.local/bin:$PATH"

# uv brings its own Python 3.11 where the image has none. The variable lets pip install beside Debian's packages.
command -v uv >/dev/null || PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user "uv==0.13.9"
uv venv --quiet --allow-existing --python 3.11 .venv
uv pip install --quiet --python .venv --compile-bytecode -r requirements.lock
uv pip install --quiet --python .venv --no-deps .

# `ray start`, and through it every job, finds ray and raycls by this line.
line="export PATH=$PWD/.venv/bin:\$PATH"
grep -qxF "$line" ~/.bashrc 2>/dev/null || echo "$line" >>~/.bashrc
