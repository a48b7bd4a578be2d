rule segment:
    """Label the vertebrae of a CT with the configured backend."""
    input:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        labels=lambda wildcards: PATIENTS[wildcards.patient]["labels"],
    output:
        vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
    log:
        "logs/{patient}/segment.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        settings=settings("segmentation"),
        code=code("images"),
    script:
        "../scripts/segment.py"
