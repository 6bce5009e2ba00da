"""Read by The Littlest JupyterHub from /opt/tljh/config/jupyterhub_config.d: settings for every student's server."""

c = get_config()  # noqa: F821  JupyterHub defines it

c.Spawner.environment.update(
    {
        "LORA_LAB_CACHE": "/srv/lora-lab/cache",  # the model that tljh.sh put there
        "LORA_LAB_THREADS": "2",
        "OMP_NUM_THREADS": "2",  # the same as limits.cpu: torch counts the machine's cores, not a student's share
    }
)
# By default systemd stops the whole server when one kernel takes too much memory; with this only that kernel is killed
# and restarted.
c.SystemdSpawner.unit_extra_properties.update({"OOMPolicy": "continue"})
