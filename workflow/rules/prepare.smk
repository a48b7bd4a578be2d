rule prepare_ct:
    """Check a patient's CT and write it in the project's form."""
    input:
        ct=lambda wildcards: PATIENTS[wildcards.patient]["ct"],
    output:
        ct=RESULTS / "patients/{patient}/ct.nii.gz",
        about=RESULTS / "patients/{patient}/ct.json",
    log:
        "logs/{patient}/prepare_ct.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code("images"),
    script:
        "../scripts/prepare_ct.py"


rule prepare_xrays:
    """Turn a shot's counts into line integrals beside their cameras."""
    input:
        images=view_files("image"),
        geometry=view_files("geometry"),
    output:
        xrays=RESULTS / "patients/{patient}/{shot}/xrays.nii.gz",
        cameras=RESULTS / "patients/{patient}/{shot}/cameras.json",
    log:
        "logs/{patient}/{shot}/prepare_xrays.log",
    conda:
        "../envs/radgs.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        views=lambda wildcards: list(views(wildcards)),
        code=code("images"),
    script:
        "../scripts/prepare_xrays.py"
