"""Triton kernels: batch normalisation, residual sum and leaky integrate-and-fire in one pass.

    n[t] = (y[t] - mean) rstd weight + bias,   c[t] = n[t] + residual[t],   spk = LIF(c)

All tensors have memory [T, rows, channels]; a row is one position of one image (channels-last). The
forward kernels read y twice, first for the statistics, then for everything else, and write the
spikes. Backward computes the neuron again from y. So only y, the residual and two numbers per
channel are kept. With g[t] = d loss / d c[t], N rows in total and unit[t] = (y[t] - mean) rstd,

    d bias = sum g,   d weight = sum g unit,
    d y[t] = rstd weight (g[t] - (d bias + unit[t] d weight) / N).

The first pass computes the two sums, the second d y. Sums have two stages and no atomic additions,
so that every run gives the same bits. All computations are in single precision. n and c are rounded
to their dtypes as the separate layers round them, so that the spikes are the same. The recurrence,
its adjoint and the resets are those of :mod:`codingbench.neurons.recurrence`.

Rounding. By default Triton contracts a product and a sum to one operation, which rounds once. The
membrane could then lie on the other side of the threshold than the eager neuron's, or differ
between the two passes. ``fire`` and ``adjoint`` are therefore compiled without contraction
(``enable_fp_fusion=False``). For given currents, their spikes are the eager neuron's for any beta.
After a normalisation they can differ where the membrane is within rounding of the threshold: mean,
1 / std and n themselves are only equal to rounding. The other kernels compute sums and gradients,
which decide nothing, and are contracted.

Loops over T are unrolled. Their intermediate values are tuples, which stay in registers.
"""
# ruff: noqa: RUF005  # Triton does not support the unpacking of tuples

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "chunk"])
def statistics(
    y, mean_of, squares_of, rows, channels, chunk, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Write the mean and the sum of squared deviations of one chunk of rows, per channel.

    Deviations are relative to the mean of the chunk's first tile. That loses no digits if the mean
    is much larger than the deviations.
    """
    columns = (channels + COLS - 1) // COLS
    part = tl.program_id(0) // columns
    col = (tl.program_id(0) % columns) * COLS + tl.arange(0, COLS)
    is_channel = col < channels
    first = part.to(tl.int64) * chunk
    left = tl.minimum(rows - first, chunk)  # rows of this chunk, at least 1
    lane = tl.arange(0, ROWS)

    here = (lane < left)[:, None] & is_channel[None, :]
    at = (first + lane)[:, None] * channels + col[None, :]
    tile = tl.load(y + at, mask=here, other=0.0).to(tl.float32)
    pilot = tl.sum(tile, axis=0) / tl.minimum(left, ROWS).to(tl.float32)

    total = tl.full([ROWS, COLS], 0.0, tl.float32)
    squares = tl.full([ROWS, COLS], 0.0, tl.float32)
    for start in range(0, chunk, ROWS):
        row = start + lane
        here = (row < left)[:, None] & is_channel[None, :]
        at = (first + row)[:, None] * channels + col[None, :]
        tile = tl.load(y + at, mask=here, other=0.0).to(tl.float32)
        shifted = tl.where(here, tile - pilot[None, :], 0.0)
        total += shifted
        squares += shifted * shifted
    offset = tl.sum(total, axis=0) / left.to(tl.float32)
    deviations = tl.sum(squares, axis=0) - offset * offset * left.to(tl.float32)
    out = part * channels + col
    tl.store(mean_of + out, pilot + offset, mask=is_channel)
    tl.store(squares_of + out, tl.maximum(deviations, 0.0), mask=is_channel)


@triton.jit(do_not_specialize=["rows", "parts", "chunk"])
def finish_statistics(
    mean_of, squares_of, mean_to, rstd_to, running_mean, running_var, tracked,
    parts, rows, channels, chunk, count, eps, momentum,
    PARTS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Combine the moments of all chunks (Chan, Golub & LeVeque 1983); update the running ones.

    The running variance is unbiased, as in ``nn.BatchNorm2d``.
    """
    col = tl.program_id(0) * COLS + tl.arange(0, COLS)
    is_channel = col < channels
    lane = tl.arange(0, PARTS)

    weighted = tl.full([PARTS, COLS], 0.0, tl.float32)
    for start in range(0, parts, PARTS):
        part = start + lane
        here = (part < parts)[:, None] & is_channel[None, :]
        size = tl.minimum(rows - part.to(tl.int64) * chunk, chunk).to(tl.float32)[:, None]
        mean = tl.load(mean_of + part[:, None] * channels + col[None, :], mask=here, other=0.0)
        weighted += tl.where(here, mean * (size / count), 0.0)
    mean_of_all = tl.sum(weighted, axis=0)

    squares = tl.full([PARTS, COLS], 0.0, tl.float32)
    for start in range(0, parts, PARTS):
        part = start + lane
        here = (part < parts)[:, None] & is_channel[None, :]
        size = tl.minimum(rows - part.to(tl.int64) * chunk, chunk).to(tl.float32)[:, None]
        at = part[:, None] * channels + col[None, :]
        mean = tl.load(mean_of + at, mask=here, other=0.0)
        own = tl.load(squares_of + at, mask=here, other=0.0)
        apart = mean - mean_of_all[None, :]
        squares += tl.where(here, own + apart * apart * size, 0.0)
    deviations = tl.sum(squares, axis=0)

    tl.store(mean_to + col, mean_of_all, mask=is_channel)
    rstd = 1.0 / tl.sqrt(deviations / count + eps)
    tl.store(rstd_to + col, rstd, mask=is_channel)
    before = tl.load(running_mean + col, mask=is_channel, other=0.0).to(tl.float32)
    after = (1 - momentum) * before + momentum * mean_of_all
    tl.store(running_mean + col, after.to(running_mean.dtype.element_ty), mask=is_channel)
    before = tl.load(running_var + col, mask=is_channel, other=0.0).to(tl.float32)
    after = (1 - momentum) * before + momentum * (deviations / (count - 1))
    tl.store(running_var + col, after.to(running_var.dtype.element_ty), mask=is_channel)
    if tl.program_id(0) == 0:
        tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def integrate(held, c, beta, RESET: tl.constexpr):
    """Return beta held + c, rounded once or twice, as the eager neuron of this reset does."""
    v = beta * held + c
    if RESET == "zero":
        v = tl.fma(held, beta, c)
    return v


@triton.jit(do_not_specialize=["rows"])
def fire(
    y, residual, mean, rstd, weight, bias, spk, cur, bits,
    rows, channels, step, y_step, residual_step, beta, threshold,
    T: tl.constexpr, RESET: tl.constexpr,
    NORM: tl.constexpr, RESIDUAL: tl.constexpr, EMIT: tl.constexpr, PACK: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write the spikes of all steps, the currents if ``EMIT``, and the packed spikes if ``PACK``.

    ``y_step`` is 0 for a current that is constant over time. Bit t of a number in ``bits`` is the
    spike of step t.
    """
    columns = (channels + COLS - 1) // COLS
    row = (tl.program_id(0) // columns).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = (tl.program_id(0) % columns) * COLS + tl.arange(0, COLS)
    here = (row < rows)[:, None] & (col < channels)[None, :]
    at = row[:, None] * channels + col[None, :]
    if NORM:
        is_channel = col < channels
        centre = tl.load(mean + col, mask=is_channel, other=0.0)[None, :]
        scale = tl.load(rstd + col, mask=is_channel, other=0.0)
        scale = (scale * tl.load(weight + col, mask=is_channel, other=0.0).to(tl.float32))[None, :]
        shift = tl.load(bias + col, mask=is_channel, other=0.0).to(tl.float32)[None, :]

    given = ()  # start all loads before the first result is needed
    added = ()
    y_at = at
    residual_at = at
    for _ in tl.static_range(T):
        given = given + (tl.load(y + y_at, mask=here, other=0.0),)
        y_at += y_step
        if RESIDUAL:
            added = added + (tl.load(residual + residual_at, mask=here, other=0.0),)
            residual_at += residual_step

    held = tl.full([ROWS, COLS], 0.0, tl.float32)
    reset = tl.full([ROWS, COLS], 0.0, tl.float32)
    packed = tl.full([ROWS, COLS], 0, tl.int32)
    for t in tl.static_range(T):
        c = given[t].to(tl.float32)
        if NORM:
            c = ((c - centre) * scale + shift).to(y.dtype.element_ty).to(tl.float32)
        if RESIDUAL:
            c = (c + added[t].to(tl.float32)).to(spk.dtype.element_ty).to(tl.float32)
        if EMIT:
            tl.store(cur + at, c.to(cur.dtype.element_ty), mask=here)
        v = integrate(held, c, beta, RESET)
        if RESET == "subtract" or RESET == "subtract delayed":
            v = v - reset * threshold
        s = tl.where(v > threshold, 1.0, 0.0)
        tl.store(spk + at, s.to(spk.dtype.element_ty), mask=here)
        if PACK:
            packed = packed | (tl.where(v > threshold, 1, 0) << t)
        at += step
        held = v
        if RESET == "zero" or RESET == "zero delayed":
            held = tl.where(v > threshold, 0.0, v)
        if RESET == "subtract delayed":
            reset = s
        if RESET == "subtract":
            held = v - (s - reset) * threshold
            reset = tl.where(held > threshold, 1.0, 0.0)
    if PACK:
        at = row[:, None] * channels + col[None, :]
        tl.store(bits + at, packed.to(bits.dtype.element_ty), mask=here)


@triton.jit
def unpack(bits, spk, numbers, T: tl.constexpr, BLOCK: tl.constexpr):
    """Write the spikes of all T steps that ``fire`` packed into ``bits``, one number per neuron."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < numbers
    packed = tl.load(bits + at, mask=here, other=0).to(tl.int32)
    for t in tl.static_range(T):
        s = tl.where(((packed >> t) & 1) == 1, 1.0, 0.0)
        tl.store(spk + at, s.to(spk.dtype.element_ty), mask=here)
        at += numbers


@triton.jit
def slope_of(shifted, SLOPE: tl.constexpr, p, q):
    """Return the surrogate's derivative; see :mod:`codingbench.neurons.surrogates`."""
    if SLOPE == "triangle":
        slope = tl.maximum(1.0 - tl.abs(shifted), 0.0)
    elif SLOPE == "rectangle":
        slope = tl.where(tl.abs(shifted) < 0.5, 1.0, 0.0)
    elif SLOPE == "atan":
        slope = (
            p / 2 / (1 + (1.5707963267948966 * p * shifted) * (1.5707963267948966 * p * shifted))
        )
    elif SLOPE == "fast_sigmoid":
        slope = 1 / ((p * tl.abs(shifted) + 1) * (p * tl.abs(shifted) + 1))
    elif SLOPE == "sigmoid":
        s = 1 / (1 + tl.exp(-p * shifted))
        slope = p * s * (1 - s)
    elif SLOPE == "sparse_fast_sigmoid":
        slope = 1 / ((p * tl.abs(shifted) + 1) * (p * tl.abs(shifted) + 1))
        slope = tl.where(shifted > q, slope, 0.0)
    elif SLOPE == "escape_rate":
        slope = q * tl.exp(-p * tl.abs(shifted - 1.0))
    elif SLOPE == "step":
        slope = tl.where(shifted > 0.0, 1.0, 0.0)
    else:
        tl.static_assert(SLOPE == "one")
        slope = shifted * 0.0 + 1.0
    return slope


@triton.jit(do_not_specialize=["rows", "chunk"])
def adjoint(
    y, residual, mean, rstd, weight, bias, grad_spk, grad_cur, out, sum_of, product_of,
    rows, channels, step, y_step, residual_step, chunk, count, beta, threshold, p, q,
    T: tl.constexpr, RESET: tl.constexpr, SLOPE: tl.constexpr,
    NORM: tl.constexpr, RESIDUAL: tl.constexpr, READ_BY_OTHERS: tl.constexpr,
    SUMS: tl.constexpr, STORE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a neuron from y and the gradient of its spikes.

    ``SUMS``: write the two sums of the normalisation over this program's chunk to ``sum_of`` and
    ``product_of``. Otherwise these contain the complete sums, from which d y is computed.
    ``STORE``: write d loss / d c (``current``), d loss / d y (``input``) or nothing to ``out``.
    ``READ_BY_OTHERS``: add ``grad_cur``, the gradient from other readers of the currents.
    """
    columns = (channels + COLS - 1) // COLS
    part = tl.program_id(0) // columns
    col = (tl.program_id(0) % columns) * COLS + tl.arange(0, COLS)
    is_channel = col < channels
    first = part.to(tl.int64) * chunk
    if NORM:
        centre = tl.load(mean + col, mask=is_channel, other=0.0)[None, :]
        unit = tl.load(rstd + col, mask=is_channel, other=0.0)
        scale = unit * tl.load(weight + col, mask=is_channel, other=0.0).to(tl.float32)
        shift = tl.load(bias + col, mask=is_channel, other=0.0).to(tl.float32)[None, :]
        if STORE == "input":
            by_bias = (tl.load(sum_of + col, mask=is_channel, other=0.0) / count)[None, :]
            by_weight = tl.load(product_of + col, mask=is_channel, other=0.0)
            by_weight = (by_weight * unit / count)[None, :]
        scale = scale[None, :]
        unit = unit[None, :]
    total = tl.full([ROWS, COLS], 0.0, tl.float32)
    product = tl.full([ROWS, COLS], 0.0, tl.float32)

    for start in range(0, chunk, ROWS):
        row = first + start + tl.arange(0, ROWS)
        here = (row < rows)[:, None] & is_channel[None, :]
        at = row[:, None] * channels + col[None, :]
        given = ()
        added = ()
        grads = ()
        others = ()
        y_at = at
        residual_at = at
        for _ in tl.static_range(T):
            given = given + (tl.load(y + y_at, mask=here, other=0.0),)
            y_at += y_step
            if RESIDUAL:
                added = added + (tl.load(residual + residual_at, mask=here, other=0.0),)
                residual_at += residual_step
            grads = grads + (tl.load(grad_spk + at, mask=here, other=0.0),)
            if READ_BY_OTHERS:
                others = others + (tl.load(grad_cur + at, mask=here, other=0.0),)
            at += step

        held = tl.full([ROWS, COLS], 0.0, tl.float32)
        reset = tl.full([ROWS, COLS], 0.0, tl.float32)
        membranes = ()
        for t in tl.static_range(T):
            c = given[t].to(tl.float32)
            if NORM:
                c = ((c - centre) * scale + shift).to(y.dtype.element_ty).to(tl.float32)
            if RESIDUAL:
                c = (c + added[t].to(tl.float32)).to(grad_spk.dtype.element_ty).to(tl.float32)
            v = integrate(held, c, beta, RESET)
            if RESET == "subtract" or RESET == "subtract delayed":
                v = v - reset * threshold
            membranes = membranes + (v,)
            held = v
            if RESET == "zero" or RESET == "zero delayed":
                held = tl.where(v > threshold, 0.0, v)
            if RESET == "subtract delayed":
                reset = tl.where(v > threshold, 1.0, 0.0)
            if RESET == "subtract":
                held = v - (tl.where(v > threshold, 1.0, 0.0) - reset) * threshold
                reset = tl.where(held > threshold, 1.0, 0.0)

        carry = tl.full([ROWS, COLS], 0.0, tl.float32)  # d loss / d h[t]
        for t in tl.static_range(T - 1, -1, -1):
            at -= step
            v = membranes[t]
            grad = grads[t].to(tl.float32)
            if RESET == "zero":
                grad = grad - carry * v
            if RESET == "subtract":
                grad = grad - carry * threshold
            grad = slope_of(v - threshold, SLOPE, p, q) * grad
            if RESET == "zero" or RESET == "zero delayed":
                grad = grad + tl.where(v > threshold, 0.0, carry)
            else:
                grad = grad + carry
            carry = grad * beta
            if READ_BY_OTHERS:
                grad = grad + others[t].to(tl.float32)
            if NORM:
                apart = given[t].to(tl.float32) - centre
            if SUMS:
                total += tl.where(here, grad, 0.0)
                product += tl.where(here, grad * apart, 0.0)
            if STORE == "current":
                tl.store(out + at, grad.to(out.dtype.element_ty), mask=here)
            if STORE == "input":
                grad = (grad - by_bias - apart * by_weight) * scale
                tl.store(out + at, grad.to(out.dtype.element_ty), mask=here)
    if SUMS:
        where = part * channels + col
        tl.store(sum_of + where, tl.sum(total, axis=0), mask=is_channel)
        tl.store(product_of + where, tl.sum(product * unit, axis=0), mask=is_channel)


@triton.jit(do_not_specialize=["parts"])
def finish_sums(sum_of, product_of, sum_to, product_to, parts, channels,
                PARTS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """Add the two sums of all chunks, which are the gradients by bias and weight."""
    col = tl.program_id(0) * COLS + tl.arange(0, COLS)
    is_channel = col < channels
    total = tl.full([PARTS, COLS], 0.0, tl.float32)
    product = tl.full([PARTS, COLS], 0.0, tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        here = (part < parts)[:, None] & is_channel[None, :]
        at = part[:, None] * channels + col[None, :]
        total += tl.load(sum_of + at, mask=here, other=0.0)
        product += tl.load(product_of + at, mask=here, other=0.0)
    tl.store(sum_to + col, tl.sum(total, axis=0), mask=is_channel)
    tl.store(product_to + col, tl.sum(product, axis=0), mask=is_channel)


@triton.jit(do_not_specialize=["rows"])
def gradient_of_input(
    y, grad_cur, mean, rstd, weight, sum_of, product_of, out, rows, channels, count,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write d y from d loss / d c, which is known if there is a residual; rows of all steps."""
    columns = (channels + COLS - 1) // COLS
    row = (tl.program_id(0) // columns).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = (tl.program_id(0) % columns) * COLS + tl.arange(0, COLS)
    is_channel = col < channels
    here = (row < rows)[:, None] & is_channel[None, :]
    at = row[:, None] * channels + col[None, :]
    x = tl.load(y + at, mask=here, other=0.0).to(tl.float32)
    grad = tl.load(grad_cur + at, mask=here, other=0.0).to(tl.float32)
    centre = tl.load(mean + col, mask=is_channel, other=0.0)[None, :]
    unit = tl.load(rstd + col, mask=is_channel, other=0.0)
    scale = unit * tl.load(weight + col, mask=is_channel, other=0.0).to(tl.float32)
    by_bias = (tl.load(sum_of + col, mask=is_channel, other=0.0) / count)[None, :]
    by_weight = (tl.load(product_of + col, mask=is_channel, other=0.0) * unit / count)[None, :]
    grad = (grad - by_bias - (x - centre) * by_weight) * scale[None, :]
    tl.store(out + at, grad.to(out.dtype.element_ty), mask=here)
