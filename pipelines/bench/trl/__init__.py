"""TRL 1.16's training steps beside ours: its CPU seconds, and its loss and gradient on the same tokens.

- `job.py`          what is asked for: models, prompts, lengths, optimizer; Given: responses in place of drawn ones
- `driver.py`       measure(job) -> Steps, evaluate(job, given) -> Gradient; a process of one thread each, in TRL, the
                    environment `.venv-trl`, which TRL.install() makes and TRL.interpreter() finds
- `worker.py`       the program of that process, inside TRL's environment

A figure does this, and takes the ratio of medians from processes that follow each other; Absent is its note:

    TRL.install() where the sizes allow it, else TRL.interpreter()
    job = Job(method="opd", student=folder, teacher=folder, prompts=64 token lists)       or
    job = Job(method="grpo", student=folder, prompts=8 token lists, group=8)
    measure(job).median against ours; .outside is the share that is not sampling, forward, backward or optimizer.step
    evaluate(job, Given(responses=ours)).loss, .tensors against our loss and gradients on those responses

What TRL computes, with y_b the n_b response tokens of row b, EOS included, of B rows and N tokens in all; p_s and p_T
are softmax(logits / temperature), the temperature of sampling, on both sides (all pinned in tests by a reference):

    opd   (1/N) sum_b sum_t KL(p_s || p_T), over the whole vocabulary. DistillationTrainer with beta=1, which is always
          on-policy; GKDTrainer, the older one, is experimental by now.
    grpo  -sum_b A_b sum_t w_b ratio_bt with w_b = 1 / (B n_b), 1 / N or 1 / (B max_new_tokens) for loss_type `grpo`,
          `dapo`, `dr_grpo`. ratio = exp(log p_s - its own detached value) = 1, since one update follows each sampling,
          so clipping never acts and the loss is constant in value, not in gradient.
          A_b = (r_b - mean) / (std + 1e-4) in its group, std with Bessel's correction.

The step is the trainer's whole loop: sampling by `generate`, forward, backward, clipping to norm 1, fused AdamW,
metrics. Settings are those under which it is fastest on one CPU thread, all documented options: f32, no gradient
checkpointing (TRL's default is on), bf16 off (default on), one batch of all rows, no logging, saving, progress bar or
loader processes, beta 0 and so no reference model. Measured and left as they are, within noise or slower: eager
attention, a static cache, two accumulated half batches, unfused AdamW. torch.compile and vLLM were not tried.

Pitfalls. Special tokens are found inside of words, so words of the tokenizer are closed, <11>. In one epoch, or the
start of the next counts as a step's. The first step is no measure: warmup is at least 1. Each process spends some 8 CPU
seconds on imports, none of them in a step. Sampled lengths depend on the weights, so look at `tokens` and `longest`
before comparing seconds. Gradients are before clipping; tied weights are there once, as embed_tokens.
"""
