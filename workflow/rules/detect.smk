rule detect:
    """Find the levels in a shot's views and triangulate their centres."""
    input:
        cameras=RESULTS / "patients/{patient}/{shot}/cameras.json",
        boxes=boxes,
    output:
        levels=RESULTS / "patients/{patient}/{shot}/levels.json",
    log:
        "logs/{patient}/{shot}/detect.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=settings("detection"),
        code=code("images"),
    script:
        "../scripts/detect.py"
