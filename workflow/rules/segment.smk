rule segment:
    """Label the vertebrae of a CT with the configured backend and check the labels."""
    input:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        labels=provided_labels,
        weights=segmentation_weights,
        statistics="resources/vertebra_statistics.json",
    output:
        vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
        audit=RESULTS / "patients/{patient}/vertebrae.json",
    log:
        "logs/{patient}/segment.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1 if CONFIG.segmentation.backend == "provided" else 2
    resources:
        mem_mb=4000 if CONFIG.segmentation.backend == "provided" else 12000,
    params:
        settings=settings("segmentation"),
        code=code("anatomy"),
    script:
        "../scripts/segment.py"
