"""NVVM IR into IR for this CPU: intrinsics renamed to the runtime's, address spaces dropped."""

from __future__ import annotations

import re

import llvmlite.binding as llvm

_REGISTERS = {
    f"{register}.{axis}": f"ch_{register}_{axis}"
    for register in ("tid", "ntid", "ctaid", "nctaid")
    for axis in "xyz"
} | {"laneid": "ch_laneid", "warpsize": "ch_warpsize"}
_BARRIERS = {
    "ch.nvvm.barrier0": "ch_barrier",
    "ch.nvvm.barrier.cta.sync.aligned.all": "ch_barrier",
    "ch.nvvm.barrier0.popc": "ch_barrier_count",
    "ch.nvvm.barrier0.and": "ch_barrier_and",
    "ch.nvvm.barrier0.or": "ch_barrier_or",
    "ch.nvvm.bar.warp.sync": "ch_warp_sync",
}
_FENCES = ("ch.nvvm.membar.cta", "ch.nvvm.membar.gl", "ch.nvvm.membar.sys")
_WAITS = ("@ch_barrier", "@ch_warp_sync", "ch.nvvm.shfl", "ch.nvvm.vote")
_BYTES = {"float": 4, "double": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8}
_PAIR = """
  %l = trunc i64 %r to i32
  %h = lshr i64 %r, 32
  %p = trunc i64 %h to i1
  %a = insertvalue {i32,i1} undef, i32 %l, 0
  %z = insertvalue {i32,i1} %a, i1 %p, 1
  ret {i32,i1} %z
}
"""
_DEFINITIONS = {
    "ch.nvvm.shfl.sync.i32": (
        'define internal {i32,i1} @"ch.nvvm.shfl.sync.i32"'
        "(i32 %m,i32 %o,i32 %v,i32 %b,i32 %c) {\n"
        "  %r = call i64 @ch_shuffle(i32 %m,i32 %o,i32 %v,i32 %b,i32 %c)" + _PAIR
    ),
    "ch.nvvm.vote.sync": (
        'define internal {i32,i1} @"ch.nvvm.vote.sync"(i32 %m,i32 %o,i1 %v) {\n'
        "  %e = zext i1 %v to i32\n  %r = call i64 @ch_vote(i32 %m,i32 %o,i32 %e)" + _PAIR
    ),
}
for _short, _type in (("f32", "float"), ("f64", "double")):  # one core: a plain update is atomic
    _name = f"ch.nvvm.atomic.load.add.{_short}.p0{_short}"
    _DEFINITIONS[_name] = (
        f'define internal {_type} @"{_name}"(ptr %p, {_type} %v) {{\n  %o = load {_type}, ptr %p\n'
        f"  %n = fadd {_type} %o, %v\n  store {_type} %n, ptr %p\n  ret {_type} %o\n}}\n"
    )
    for _op, _test in (("max", "ogt"), ("min", "olt")):
        _name = f"___numba_atomic_{_type}_{_op}"
        _DEFINITIONS[_name] = (
            f'define internal {_type} @"{_name}"(ptr %p, {_type} %v) {{\n'
            f"  %o = load {_type}, ptr %p\n  %c = fcmp {_test} {_type} %v, %o\n"
            f"  %n = select i1 %c, {_type} %v, {_type} %o\n  store {_type} %n, ptr %p\n"
            f"  ret {_type} %o\n}}\n"
        )


def host_module(texts, entry: str) -> tuple[str, int, bool]:
    """Link NVVM modules (the kernel's first) into one for this CPU.

    Returns its IR, the bytes of static shared memory, and whether threads ever wait for others.
    """
    modules = [llvm.parse_assembly(_rewrite(text)) for text in texts]
    for other in modules[1:]:
        modules[0].link_in(other)
    ir = str(modules[0])
    extra = "declare i64 @ch_shuffle(i32,i32,i32,i32,i32)\ndeclare i64 @ch_vote(i32,i32,i32)\n"
    for name, definition in _DEFINITIONS.items():
        if name in ir:
            ir = re.sub(rf'^declare .*@"?{re.escape(name)}"?\(.*$', "", ir, flags=re.MULTILINE)
            extra += definition
    for name in _FENCES:
        declaration = rf'^declare void @"?{re.escape(name)}"?\(\).*$'
        ir = re.sub(
            declaration, f'define internal void @"{name}"() {{ ret void }}', ir, flags=re.MULTILINE
        )
    size_register = r'call i32 asm (?:sideeffect )?"mov\.u32 \$0, %dynamic_smem_size;", "=r"\(\)'
    ir, uses = re.subn(size_register, "call i32 @ch_shared_size()", ir)
    if uses:
        extra += "declare i32 @ch_shared_size()\n"
    inline = sorted(set(re.findall(r'asm (?:sideeffect )?(?:alignstack )?"([^"]*)"', ir)))
    if inline:
        raise NotImplementedError(f"inline PTX: {inline}")
    poison, size = _poison(ir)
    ir = f"{ir}\n{extra}{_entry(ir, entry)}{poison}"
    return ir, size, any(wait in ir for wait in _WAITS)


def _rewrite(text: str) -> str:
    text = text.replace("llvm.nvvm.", "ch.nvvm.")
    for register, function in _REGISTERS.items():
        text = re.sub(rf'@"ch\.nvvm\.read\.ptx\.sreg\.{re.escape(register)}"', f"@{function}", text)
    for name, function in _BARRIERS.items():
        text = text.replace(f'@"{name}"', f"@{function}")
    text = re.sub(r"^target (triple|datalayout).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r'^@"llvm\.used".*$', "", text, flags=re.MULTILINE)
    dynamic = r"^(@\S+) = external addrspace\(3\) global \[0 x \S+?\].*$"
    for name in re.findall(dynamic, text, re.MULTILINE):  # all of them are one piece of memory
        text = re.sub(rf"^{re.escape(name)} = .*$", "", text, flags=re.MULTILINE)
        text = re.sub(rf'{re.escape(name)}(?![\w."])', "@ch_shared_memory", text)
        if "@ch_shared_memory =" not in text:
            text += "\n@ch_shared_memory = external global [0 x i8], align 16\n"
    text = re.sub(r" ?addrspace\(\d\)", "", text).replace("addrspacecast", "bitcast")
    return re.sub(r"^!nvvm.*$", "", text, flags=re.MULTILINE)


def _entry(ir: str, entry: str) -> str:
    """A function that unpacks a vector of pointers into the kernel's arguments."""
    head = re.search(
        rf'^define [^@]*void @"?{re.escape(entry)}"?\((.*?)\)[^()]*\{{', ir, re.MULTILINE
    )
    types = [
        re.match(r"\s*(\{.*\}|\[.*\]|\S+)", part).group(1) for part in _arguments(head.group(1))
    ]
    loads = "".join(
        f"  %p{i} = getelementptr ptr, ptr %a, i64 {i}\n  %q{i} = load ptr, ptr %p{i}\n"
        f"  %v{i} = load {t}, ptr %q{i}\n"
        for i, t in enumerate(types)
    )
    values = ", ".join(f"{t} %v{i}" for i, t in enumerate(types))
    return (
        f'define void @ch_entry(ptr %a) {{\n{loads}  call void @"{entry}"({values})\n'
        "  ret void\n}\n"
    )


def _poison(ir: str) -> tuple[str, int]:
    """A function that fills shared memory with ones (NaN, -1); and the size of its static part."""
    pattern = (
        r"^(@\S+) = (?:internal |external )?global (\[(\d+) x (\S+?)\]) "
        r"(?:undef|zeroinitializer|poison), .*;?"
    )
    arrays = [
        (name, int(n) * _BYTES[t])
        for name, _, n, t in re.findall(pattern, ir, re.MULTILINE)
        if "smem" in name
    ]
    fills = "".join(
        f"  call void @llvm.memset.p0.i64(ptr {name}, i8 -1, i64 {size}, i1 false)\n"
        for name, size in arrays
    )
    text = (
        f"define void @ch_poison() {{\n{fills}  ret void\n}}\n"
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\n"
    )
    return text, sum(size for _, size in arrays)


def _arguments(text: str) -> list[str]:
    """Split at commas that stand outside brackets."""
    parts, depth, part = [], 0, ""
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and not depth:
            parts.append(part)
            part = ""
        else:
            part += character
    return parts + ([part] if part.strip() else [])
