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
