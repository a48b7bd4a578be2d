rule crop:
    """Cut a level's excess attenuation and mask out of the CT."""
    input:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
    output:
        excess=RESULTS / "patients/{patient}/crops/{level}_excess.nii.gz",
        mask=RESULTS / "patients/{patient}/crops/{level}_mask.nii.gz",
    log:
        "logs/{patient}/crop_{level}.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        settings=settings("crop"),
        code=code("anatomy"),
    script:
        "../scripts/crop.py"


rule fit_anchors:
    """Fit radiative Gaussians to a level's crop, for the CT-assisted reconstruction."""
    input:
        excess=RESULTS / "patients/{patient}/crops/{level}_excess.nii.gz",
    output:
        anchors=RESULTS / "patients/{patient}/anchors/{level}.ply",
    log:
        "logs/{patient}/fit_anchors_{level}.log",
    conda:
        "../envs/radgs.yaml"
    threads: 2
    resources:
        mem_mb=2000,
    params:
        settings=settings("network", "anchors", "seed"),
        code=code("anatomy"),
    script:
        "../scripts/fit_anchors.py"
