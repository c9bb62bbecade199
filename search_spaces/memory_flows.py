"""The built-in kinds of blocks: how memory is used by each; see :mod:`search_spaces.memory`."""

from __future__ import annotations

import numpy as np

from search_spaces.block_kinds import BLOCK_KINDS, BlockKind
from search_spaces.columns import OperatorColumn
from search_spaces.layers import FLOAT_BITS
from search_spaces.memory import INPUTS, NOTHING, PLACES, SUM, Roles, Tape, Tensor


def _stem(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    return roles.chain(tape, x, ["stem"], tape.stream_bits, activation=roles.point("output"))


def _pooled_stem(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    x = _stem(tape, roles, x)
    stem = roles.layers["stem"].layer
    width = (np.asarray(stem.out_size) + 1) // 2
    height = width if np.all(np.less(stem.out_height, 0)) else (stem.out_height + 1) // 2
    return tape.op([x], stem.out_channels * width * height, tape.stream_bits, keeps=PLACES)


def _mbconv(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    block = roles.block
    if "squeeze" in roles:
        first = ["expand", "fused", "depthwise"]
        h = roles.chain(tape, x, first, tape.stream_bits, activation=roles.point("gate"))
        squeeze = roles.layers["squeeze"]
        channels = squeeze.layer.in_channels
        bits = squeeze.layer.activation_bits
        pooled = tape.op([h], channels, bits, squeeze.active, keeps=NOTHING)
        last = roles.point("scale")
        gate = roles.chain(tape, pooled, ["squeeze", "excite"], tape.stream_bits, activation=last)
        h = tape.op([h, gate], h.count, roles.bits("project"), squeeze.active, keeps=INPUTS)
        h = roles.chain(tape, h, ["project"], tape.stream_bits)
    else:
        order = ["expand", "fused", "depthwise", "project"]
        h = roles.chain(tape, x, order, tape.stream_bits)
    return tape.op([h, x], h.count, tape.stream_bits, block.residual, keeps=SUM)


def _residual(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    short = roles.chain(tape, x, ["shortcut"], tape.stream_bits)
    order = ["reduce", "conv1", "conv", "conv2", "restore"]
    h = roles.chain(tape, x, order, tape.stream_bits)
    active = roles.block.active
    last = roles.point("sum")
    return tape.op([h, short], h.count, tape.stream_bits, active, keeps=SUM, activation=last)


def _mlp(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    h = roles.chain(tape, x, ["expand", "contract"], tape.stream_bits)
    return tape.op([h, x], h.count, tape.stream_bits, roles.block.active, keeps=SUM)


def _lean_attention(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    active = roles.block.active
    h = roles.chain(tape, x, ["reduce", "qkv"], tape.stream_bits)
    h = _attend(tape, roles, h, "heads", tape.stream_bits)
    h = roles.chain(tape, h, ["project"], tape.stream_bits)
    # Enlarging and adding is one operation: a value is read where it is added.
    return tape.op([x, h], x.count, tape.stream_bits, active, keeps=SUM)


def _patches(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    return roles.chain(tape, x, ["patches"], FLOAT_BITS)


def _transformer(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    x = _with_attention(tape, roles, x, "heads", tape.stream_bits)
    return _with_mlp(tape, roles, x)


def _embed_tokens(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    table = roles.block.operators[0].operator
    return tape.op([x], table.channels * table.tokens, FLOAT_BITS, keeps=NOTHING)


def _decoder(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    return _with_mlp(tape, roles, _with_attention(tape, roles, x, "attend", FLOAT_BITS))


def _language_head(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    h = tape.op([x], x.count, roles.bits("classifier"), keeps=INPUTS)
    return roles.chain(tape, h, ["classifier"], FLOAT_BITS)


Alive = tuple[Tensor, ...]
"""(current, *kept), of kinds that keep tensors."""

_MOST_MEMORIES = 3


def _embed_source(tape: Tape, roles: Roles, alive: Alive) -> Alive:
    table = _operator(roles, "embed").operator
    source = tape.op([alive[0]], table.channels * table.tokens, FLOAT_BITS, keeps=NOTHING)
    mask = tape.op([alive[0]], table.tokens, FLOAT_BITS, keeps=NOTHING)
    # Numbers of the target's symbols wait in the input.
    return source, mask, alive[0]


def _encoder(tape: Tape, roles: Roles, alive: Alive) -> Alive:
    x, mask, target, *memories = alive
    x = _with_mlp(tape, roles, _with_attention(tape, roles, x, "attend", FLOAT_BITS, mask))
    new = [x, *memories][:_MOST_MEMORIES]
    # Where the layer is not there, the outputs of those before it stay what they were.
    before = [*memories, *new[len(memories) :]]
    kept = [_either(roles.block.active, a, b) for a, b in zip(new, before, strict=True)]
    return x, mask, target, *kept


def _embed_target(tape: Tape, roles: Roles, alive: Alive) -> Alive:
    _, mask, target, *memories = alive
    table = _operator(roles, "embed").operator
    y = tape.op([target], table.channels * table.tokens, FLOAT_BITS, keeps=NOTHING)
    return y, mask, *memories


def _cross_decoder(tape: Tape, roles: Roles, alive: Alive) -> Alive:
    x, mask, *memories = alive
    active = roles.block.active
    x = _with_attention(tape, roles, x, "attend", FLOAT_BITS)
    gather = _operator(roles, "gather").operator
    layers = np.asarray(gather.entries)
    joined = [_either(layers > i, memory, memories[0]) for i, memory in enumerate(memories)]
    memory = tape.op(
        joined, gather.channels * gather.tokens, roles.bits("memory"), active, keeps=INPUTS
    )
    memory = roles.chain(tape, memory, ["memory"], FLOAT_BITS)
    h = tape.op([x], x.count, roles.bits("query"), active, keeps=INPUTS)
    query = roles.chain(tape, h, ["query"], FLOAT_BITS)
    cross = _operator(roles, "cross").operator
    count = roles.layers["query"].layer.tokens
    scores = tape.op(
        [query, memory, mask], cross.heads * count * cross.tokens, FLOAT_BITS, active, keeps=INPUTS
    )
    h = tape.op(
        [scores, memory], cross.channels * count, roles.bits("combine"), active, keeps=INPUTS
    )
    h = roles.chain(tape, h, ["combine"], FLOAT_BITS)
    x = tape.op([x, h], x.count, FLOAT_BITS, active, keeps=SUM)
    return _with_mlp(tape, roles, x), mask, *memories


def _sequence_head(tape: Tape, roles: Roles, alive: Alive) -> Tensor:
    return _language_head(tape, roles, alive[0])


def _operator(roles: Roles, role: str) -> OperatorColumn:
    return next(item for item in roles.block.operators if item.operator.role == role)


def _either(first: np.ndarray, a: Tensor, b: Tensor) -> Tensor:
    """Return ``a`` in the architectures of ``first`` (n,) bool, ``b`` in the others."""
    return Tensor(np.where(first, a.storage, b.storage), np.where(first, a.count, b.count))


def _token_head(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    classifier = roles.layers["classifier"]
    h = tape.op([x], x.count, FLOAT_BITS, keeps=INPUTS)
    channels, bits = classifier.layer.in_channels, classifier.layer.activation_bits
    h = tape.op([h], channels, bits, keeps=NOTHING)
    return roles.chain(tape, h, ["classifier"], FLOAT_BITS)


def _head(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    x = roles.chain(tape, x, ["head"], tape.stream_bits, activation=roles.point("pool"))
    last = ["feature", "classifier"]
    first = roles.layers["feature" if "feature" in roles else "classifier"]
    channels, bits = first.layer.in_channels, first.layer.activation_bits
    x = tape.op([x], channels, bits, keeps=NOTHING)
    return roles.chain(tape, x, last, FLOAT_BITS)


def _attend(
    tape: Tape,
    roles: Roles,
    qkv: Tensor,
    role: str,
    inner_bits: np.ndarray | int,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention between projections: scores of all heads, then their values."""
    heads = _operator(roles, role)
    plan, active, bits = heads.operator, heads.active, roles.bits("project")
    read = [qkv] if mask is None else [qkv, mask]
    scores = tape.op(read, plan.heads * plan.tokens**2, inner_bits, active, keeps=INPUTS)
    return tape.op([scores, qkv], plan.channels * plan.tokens, bits, active, keeps=INPUTS)


def _with_attention(
    tape: Tape,
    roles: Roles,
    x: Tensor,
    role: str,
    inner_bits: np.ndarray | int,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention after a norm, added to what it read."""
    active = roles.block.active
    h = tape.op([x], x.count, roles.bits("qkv"), active, keeps=INPUTS)
    h = roles.chain(tape, h, ["qkv"], inner_bits)
    h = _attend(tape, roles, h, role, inner_bits, mask)
    h = roles.chain(tape, h, ["project"], FLOAT_BITS)
    return tape.op([x, h], x.count, FLOAT_BITS, active, keeps=SUM)


def _with_mlp(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    """An MLP after a norm, added to what it read."""
    active = roles.block.active
    h = tape.op([x], x.count, roles.bits("widen"), active, keeps=INPUTS)
    h = roles.chain(tape, h, ["widen", "contract"], FLOAT_BITS)
    return tape.op([x, h], x.count, FLOAT_BITS, active, keeps=SUM)


for _name, _dataflow, _flow in (
    ("stem", "stem", _stem),
    ("pooled_stem", "pooled_stem", _pooled_stem),
    ("mbconv", "mbconv", _mbconv),
    ("residual", "residual_block", _residual),
    ("mlp", "mlp", _mlp),
    ("lean_attention", "lean_attention", _lean_attention),
    ("patches", "patches", _patches),
    ("transformer", "transformer", _transformer),
    ("token_head", "token_head", _token_head),
    ("embed_tokens", "embed_tokens", _embed_tokens),
    ("decoder", "decoder", _decoder),
    ("language_head", "language_head", _language_head),
    ("head", "head", _head),
):
    BLOCK_KINDS.register(_name)(BlockKind(f"supernet.dataflow:{_dataflow}", _flow))

for _name, _kept_flow in (
    ("embed_source", _embed_source),
    ("encoder", _encoder),
    ("embed_target", _embed_target),
    ("cross_decoder", _cross_decoder),
    ("sequence_head", _sequence_head),
):
    BLOCK_KINDS.register(_name)(
        BlockKind(f"supernet.sequences:{_name}", _kept_flow, kept=True)  # type: ignore[arg-type]
    )
