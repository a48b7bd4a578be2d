rule simulate:
    """Simulate training pairs from a patient's own CT (stage P3)."""
    input:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
    output:
        pairs=RESULTS / "simulation/{patient}/pairs.h5",
    log:
        "logs/{patient}/simulate.log",
    conda:
        "../envs/radgs.yaml"
    threads: 2
    resources:
        mem_mb=4000,
    params:
        levels=levels,
        settings=settings("simulation", "network", "crop", "seed"),
        code=code("simulation"),
    script:
        "../scripts/simulate.py"


rule simulate_population:
    """Change a patient of the population and simulate training pairs of the result (stage P1)."""
    input:
        lambda wildcards: list(
            filter(None, map(POPULATION[wildcards.subject].get, ("ct", "labels")))
        ),
    output:
        shard=RESULTS / "simulation/population/{subject}-{variant}.h5",
    log:
        "logs/population/simulate_{subject}-{variant}.log",
    wildcard_constraints:
        subject="|".join(POPULATION) or "none",
        variant="[0-9]+",
    cache: True
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        subject=lambda wildcards: POPULATION[wildcards.subject],
        settings=settings("simulation", "population", "network", "crop", "seed"),
        code=code("simulation"),
    script:
        "../scripts/simulate_population.py"
