"""Rules between keys: what fits together, checked before anything is read; every broken rule is named at once."""

from __future__ import annotations

from collections.abc import Iterator

from advmil.config import ADVERSARIAL_TASKS, BASELINE_TASKS, DEAD_KEYS, Config, Handler, parse_dims
from medshared.configuration import ConfigError

# Epochs of the semi-supervised phase have keys of their own; `test` needs these as well.
TEST_KEYS = ("test_load_path", "test_save_path")


def check_config(config: Config, handler: Handler, label: str = "configuration") -> None:
    """Check that a configuration's keys fit together and to the handler.

    Args:
        config: One run; grids are expanded before.
        handler: ``adv`` (AdvMIL) or ``base`` (baselines).
        label: What messages call the configuration, normally its file.

    Raises:
        ConfigError: One line for each broken rule.
    """
    rules = _adversarial_rules if handler == "adv" else _baseline_rules
    problems = [f"{label}: {line}" for line in (*_data_rules(config), *_common_rules(config), *rules(config))]
    if problems:
        raise ConfigError(problems)


def dead_keys(given: set[str]) -> list[str]:
    """Return the keys of a configuration that are accepted and have no effect."""
    return [key for key in DEAD_KEYS if key in given]


def _data_rules(config: Config) -> Iterator[str]:
    for key in ("path_patch", "path_label", "data_split_path"):
        if not getattr(config, key):
            yield f"key {key!r}: missing; give the path of your data"
    if config.bcb_mode == "graph" and not config.path_graph:
        yield "key 'path_graph': missing; bcb_mode graph reads <pathology_id>.pt there (tools/patchgcn_graph_s2.py)"
    if config.bcb_mode == "cluster" and not config.path_cluster:
        yield (
            "key 'path_cluster': missing; bcb_mode cluster reads <patient_id>.npy there "
            "(tools/deepattnmisl_cluster.py)"
        )


def _common_rules(config: Config) -> Iterator[str]:
    widths = config.bcb_widths
    if len(widths) != 3:
        yield f"key 'bcb_dims': expected input-hidden-embedding, found {config.bcb_dims!r}"
        return
    _, hidden, embedding = widths
    if config.bcb_mode in ("patch", "cluster") and hidden != embedding:
        yield f"key 'bcb_dims': hidden {hidden} must equal embedding {embedding} for bcb_mode {config.bcb_mode}"
    if config.bcb_mode == "patch" and hidden % 8:
        yield f"key 'bcb_dims': hidden {hidden} must be a multiple of 8 (attention heads) for bcb_mode patch"
    if config.semi_training and config.test:
        yield "keys 'semi_training' and 'test' exclude each other; set one of them to False"
    if config.test:
        for key in TEST_KEYS:
            if not getattr(config, key):
                yield f"key {key!r}: missing; test mode needs it"
        if config.test_mask_ratio > 0 and config.bcb_mode not in ("patch", "abmil"):
            yield f"key 'test_mask_ratio': regions can be masked for bcb_mode patch and abmil, found {config.bcb_mode}"


def _adversarial_rules(config: Config) -> Iterator[str]:
    if config.task not in ADVERSARIAL_TASKS:
        yield (
            f"key 'task': {config.task!r} is a baseline; use --handler base, or one of "
            f"{', '.join(ADVERSARIAL_TASKS)}"
        )
        return
    yield from _head_rules(config)
    yield from _discriminator_rules(config)
    noisy = any(config.noise_digits)
    if noisy and config.times_test_sample == 1:
        yield "key 'times_test_sample': 1 sample hides the noise of gen_noi_noise; use more, such as 30"
    if not noisy and config.times_test_sample != 1:
        yield (
            f"key 'times_test_sample': gen_noi_noise {config.gen_noi_noise!r} has no noise, so every sample is "
            f"the same; expected 1, found {config.times_test_sample}"
        )
    yield from _discrete_rules(config) if config.is_discrete else _continuous_rules(config)


def _head_rules(config: Config) -> Iterator[str]:
    dims = parse_dims(config.gen_dims)
    if len(dims) != 2:
        yield f"key 'gen_dims': expected embedding-outputs, found {config.gen_dims!r}"
        return
    if dims[0] != config.bcb_widths[-1]:
        yield f"key 'gen_dims': starts with {dims[0]}, but bcb_dims ends with {config.bcb_widths[-1]}"
    if config.gen_noi_hops + 1 != len(config.noise_digits):
        yield (
            f"key 'gen_noi_noise': {config.gen_noi_noise!r} has {len(config.noise_digits)} digits, expected "
            f"gen_noi_hops + 1 = {config.gen_noi_hops + 1}"
        )


def _discriminator_rules(config: Config) -> Iterator[str]:
    if config.disc_netx_in_dim != config.bcb_widths[0]:
        yield f"key 'disc_netx_in_dim': {config.disc_netx_in_dim}, but bcb_dims starts with {config.bcb_widths[0]}"
    if config.disc_nety_in_dim != parse_dims(config.gen_dims)[-1]:
        yield f"key 'disc_nety_in_dim': {config.disc_nety_in_dim}, but gen_dims ends with {config.gen_dims}"
    if config.disc_netx_out_dim != parse_dims(config.disc_nety_hid_dims)[-1]:
        yield (
            f"key 'disc_netx_out_dim': {config.disc_netx_out_dim}, but disc_nety_hid_dims "
            f"{config.disc_nety_hid_dims!r} ends with another width; both embeddings meet in a product"
        )


def _continuous_rules(config: Config) -> Iterator[str]:
    if parse_dims(config.gen_dims)[-1] != 1:
        yield f"key 'gen_dims': task cont_gansurv predicts one time, expected ...-1, found {config.gen_dims!r}"
    bounded = config.gen_out_scale == "sigmoid"
    gamma = config.loss_recon_gamma
    fits = (bounded and config.time_format == "ratio" and gamma == 0) or (
        not bounded and config.time_format == "origin" and gamma >= 1
    )
    if not fits:
        yield (
            "keys 'gen_out_scale', 'time_format', 'loss_recon_gamma': expected (sigmoid, ratio, 0), or (exp or "
            f"identity, origin, >= 1), found ({config.gen_out_scale}, {config.time_format}, {gamma:g})"
        )


def _discrete_rules(config: Config) -> Iterator[str]:
    if config.time_format != "quantile":
        yield f"key 'time_format': task disc_gansurv needs quantile, found {config.time_format!r}"
    if config.gen_out_scale != "sigmoid":
        yield f"key 'gen_out_scale': task disc_gansurv needs sigmoid, found {config.gen_out_scale!r}"
    if config.disc_nety_in_dim != config.time_bins:
        yield f"key 'disc_nety_in_dim': {config.disc_nety_in_dim}, but time_bins is {config.time_bins}"
    if config.log_plot:
        yield "key 'log_plot': must be False for task disc_gansurv"
    if config.loss_rank_coef:
        yield "key 'loss_rank_coef': must be 0 for task disc_gansurv; the ranking loss compares times"


def _baseline_rules(config: Config) -> Iterator[str]:
    if config.task not in BASELINE_TASKS:
        yield f"key 'task': {config.task!r} is AdvMIL; use --handler adv, or one of {', '.join(BASELINE_TASKS)}"
        return
    dims = parse_dims(config.pdh_dims)
    if len(dims) != 2:
        yield f"key 'pdh_dims': expected embedding-outputs, found {config.pdh_dims!r}"
        return
    if dims[0] != config.bcb_widths[-1]:
        yield f"key 'pdh_dims': starts with {dims[0]}, but bcb_dims ends with {config.bcb_widths[-1]}"
    outputs = config.time_bins if config.task == "surv_nll" else 1
    if dims[1] != outputs:
        reason = "time_bins" if config.task == "surv_nll" else "one number a patient"
        yield f"key 'pdh_dims': task {config.task} needs {outputs} outputs ({reason}), found {dims[1]}"
    if config.semi_training:
        yield "key 'semi_training': baselines learn from labels only; use --handler adv"
    if config.test:
        yield "key 'test': test mode belongs to --handler adv; use `advmil predict` for a baseline"


def with_task_format(config: Config, handler: Handler) -> Config:
    """Return the configuration with the time format that a baseline's task fixes, as in the original.

    Args:
        config: One run.
        handler: ``adv`` leaves the configuration as it is.
    """
    if handler == "adv":
        return config
    formats = {"surv_reg": "ratio", "surv_cox": "origin", "surv_nll": "quantile"}
    return config.model_copy(update={"time_format": formats.get(config.task, config.time_format)})
