rule register:
    """Register all levels of a shot: reconstruct, register in 3D, refine on the X-rays, judge."""
    input:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        ct_about=RESULTS / "patients/{patient}/ct.json",
        vertebrae=RESULTS / "patients/{patient}/vertebrae.nii.gz",
        audit=RESULTS / "patients/{patient}/vertebrae.json",
        excess=per_level("patients/{patient}/crops/{level}_excess.nii.gz"),
        mask=per_level("patients/{patient}/crops/{level}_mask.nii.gz"),
        anchors=per_level("patients/{patient}/anchors/{level}.ply"),
        xrays=RESULTS / "patients/{patient}/{shot}/xrays.nii.gz",
        cameras=RESULTS / "patients/{patient}/{shot}/cameras.json",
        levels=RESULTS / "patients/{patient}/{shot}/levels.json",
        recm=lambda wildcards: weights(wildcards.patient, "recm"),
        regm=lambda wildcards: weights(wildcards.patient, "regm"),
        verdict="resources/verdict.json",
    output:
        registrations=RESULTS / "patients/{patient}/{shot}/registrations.json",
    log:
        "logs/{patient}/{shot}/register.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        levels=levels,
        settings=settings("refinement", "judgement", "network", "crop"),
        code=code("registration"),
    script:
        "../scripts/register.py"
