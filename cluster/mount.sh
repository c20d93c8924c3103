#!/usr/bin/env bash
# Mounts an NFS export, such as EFS, Filestore or Azure Files, at /mnt/shared: bash mount.sh SERVER:/PATH
set -euo pipefail
mountpoint -q /mnt/shared && exit 0 # `raycls cluster up` again runs it again
if ! command -v mount.nfs4 >/dev/null; then
  sudo apt-get update -qq
  sudo apt-get install -y -qq --no-install-recommends nfs-common
fi
sudo mkdir -p /mnt/shared
# hard: a server that is away for a while makes the run wait, not fail. noresvport: reconnect through any port.
sudo mount -t nfs4 -o nfsvers=4.1,hard,timeo=600,retrans=2,noresvport "$1" /mnt/shared
sudo chown "$(id -u):$(id -g)" /mnt/shared
