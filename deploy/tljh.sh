#!/usr/bin/env bash
# Install LoRA Lab on a machine with The Littlest JupyterHub (https://tljh.jupyter.org). Run as root; run again to update:
#
#   sudo bash tljh.sh https://github.com/lora-lab/lora-lab        the address from which students pull
set -euo pipefail
umask 022 # everybody may read what follows

repository=${1:?give the address of the repository}
lab=/opt/lora-lab
cache=/srv/lora-lab/cache
python=/opt/tljh/user/bin/python

# The library: one checkout that all students import and none can change. Their notebooks are copies in their homes.
if [ -d "$lab/.git" ]; then git -C "$lab" pull --ff-only; else git clone --depth 1 -- "$repository" "$lab"; fi
# TLJH keeps jupyterhub at the same version in its two environments: ours must not replace it.
grep -v '^jupyterhub==' "$lab/constraints.txt" > "$lab/constraints-tljh.txt"
"$python" -m pip install --extra-index-url https://download.pytorch.org/whl/cpu \
  -c "$lab/constraints-tljh.txt" -e "${lab}[pictures,retrieval]" nbgitpuller

# The model, one copy for all: root writes, everybody reads.
mkdir -p "$cache"
LORA_LAB_CACHE="$cache" "$python" -m lab_utils.models

# Limits per student, enforced by systemd. The memory is for notebook 08 beside an older kernel (README.md).
tljh-config set limits.memory 6G
tljh-config set limits.cpu 2
# TLJH's default of ten minutes would stop a server during a lecture.
tljh-config set services.cull.timeout 3600
tljh-config set services.cull.every 300
tljh-config set user_environment.default_app jupyterlab

cp "$lab/deploy/tljh_config.py" /opt/tljh/config/jupyterhub_config.d/lora_lab.py
tljh-config reload
echo "Done. Add students and instructors as TLJH describes, then hand out the link: python $lab/deploy/link.py https://YOUR.HUB"
