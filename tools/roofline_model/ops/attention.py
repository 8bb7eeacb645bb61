"""Decode over latents, one query a sequence: the launches of src/attention/gpu.rs for one layer, one segment a sequence."""

from workload import Launch, Runs, Share

SHAPE = {"batch": 32, "context": 8192, "heads": "32/8", "head-dim": 128, "rank": 32, "latent": "bf16"}

SIZE = {"bf16": 2, "int8": 1}
THREADS, WARPS, TILE, HEADS = 128, 4, 16, 8


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def launches(batch: int, context: int, heads: str, head_dim: int, rank: int, latent: str) -> list[Launch]:
    n_heads, n_kv_heads = (int(part) for part in heads.split("/"))
    width = next(bucket for bucket in (16, 32, 64, 128) if rank <= bucket)
    tokens = max(ceil(ceil(context, 32), 64) * 64, 256)
    splits = ceil(context, tokens)
    return [
        absorb(batch, n_heads, n_kv_heads, head_dim, width),
        decode(batch, context, n_heads, n_kv_heads, rank, width, latent, splits, min(tokens, context)),
        combine(batch, n_heads, n_kv_heads, head_dim, width, splits),
    ]


def absorb(batch: int, n_heads: int, n_kv_heads: int, head_dim: int, width: int) -> Launch:
    busy = ceil(width, 32) / WARPS
    return Launch(
        "attention_absorb",
        "attention/absorb.cu",
        batch * n_heads,
        THREADS,
        shared=head_dim * 4,
        reads=batch * n_heads * head_dim * 4 + n_kv_heads * head_dim * width * 2,
        again=(batch * n_heads - n_kv_heads) * head_dim * width * 2,
        writes=batch * n_heads * (width + 1) * 4,
        served="l2",
        loops=[
            Runs("for (int j = threadIdx.x; j < pairs;", head_dim / 2 / THREADS, {"STS": 2}),
            Runs("j += THREADS) query[j] = p.scale", 0),
            Runs("for (int column = threadIdx.x; column < p.width;", 1, {"loops": 3}),  # by dtype of the matrix
            Runs("for (int i = 0; i < count; i++) sum +=", head_dim, {"FFMA": 1}),
            Runs("j += 32) bias += query[j] * mean[j];", head_dim / 32, {"FFMA": 1}),
        ],
        shares=[
            Share("for (int column = threadIdx.x;", to="p.absorbed[row", warps=busy),
            Share("if (threadIdx.x < 32) {", to="p.bias[row] = bias", warps=1 / WARPS),
        ],
    )


def decode(
    batch: int, context: int, n_heads: int, n_kv_heads: int, rank: int, width: int, latent: str, splits: int, tokens: int
) -> Launch:
    group, size = n_heads // n_kv_heads, SIZE[latent]
    chunks = ceil(group, HEADS)
    copies, conversions = TILE * width * size // 16 // 32, TILE * width // 8 // 32
    # Loops that run once are none in the code.
    loops = [Runs("for (int i = lane; i < TILE * RANK / PIECE;", copies, {"LDGSTS": 1})] if copies > 1 else []
    if latent == "int8":
        loops.append(Runs("for (int i = threadIdx.x % 32; i < TILE * RANK / 8;", conversions, {"STS": 1}))
    scales = 4 if latent == "int8" else 0
    cached = batch * context * n_kv_heads * (2 * rank * size + scales)
    return Launch(
        f"attention_decode_{latent}_r{width}",
        "attention/decode.cu",
        batch * splits * n_kv_heads * chunks,
        THREADS,
        shared=512 * width,
        reads=cached + batch * n_heads * (width + 1) * 4,
        again=(chunks - 1) * cached + (splits - 1) * batch * n_heads * (width + 1) * 4,
        writes=batch * splits * n_heads * (width + 2) * 4,
        loops=[
            *loops,
            Runs("for (int i = lane; i < TILE * RANK; i += 32)", 0),
            Runs("for (int stage = 0; first < end;", ceil(tokens, WARPS * TILE), {"HMMA": 4 * width // 16}),
            Runs("for (int i = threadIdx.x; i < heads * RANK;", min(group, HEADS) * width / THREADS, {"MUFU": 4}),
        ],
        expect={"HMMA": 4 * width // 16 * WARPS * ceil(tokens, WARPS * TILE)},
    )


def combine(batch: int, n_heads: int, n_kv_heads: int, head_dim: int, width: int, splits: int) -> Launch:
    element = head_dim / THREADS
    return Launch(
        "attention_combine",
        "attention/combine.cu",
        batch * n_heads,
        THREADS,
        shared=(width + head_dim) * 4,
        reads=n_kv_heads * head_dim * width * 2,
        again=batch * n_heads * (splits * (width + 2) * 4 + head_dim * width * 2),
        writes=batch * n_heads * head_dim * 4,
        served="l2",
        loops=[
            Runs("for (int split = p.segments[first].first_split;", splits, {"LDG": 1}),
            Runs("j += THREADS) out[j] = 0.f;", element, {"STS": 1}),
            Runs("for (int index = first; index <= last;", 1),
            Runs("for (int i = 0; i < segment.splits;", splits),
            Runs("for (int column = threadIdx.x; column < rank;", 1, {"LDG": 1}),
            Runs("for (int j = threadIdx.x; j < p.head_dim; j += THREADS) {", element, {"loops": 3}),
            Runs("for (int i = 0; i < count; i++) sum +=", width, {"FFMA": 1}),
            Runs("j += THREADS) to[j] = out[j] / total;", element, {"STG": 1}),
        ],
        shares=[Share("for (int column = threadIdx.x; column < rank;", to="latent[column] =", warps=ceil(width, 32) / WARPS)],
    )
