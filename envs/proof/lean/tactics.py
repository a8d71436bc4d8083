"""What an agent may say to Lean: one line that is a tactic, and no command.

Covers: holes (sorry), axioms, native_decide, new notation, options, programs that run while Lean
elaborates, comments and strings that could hide one of these. Does not cover: a tactic that Lean
takes and should not; the verdict of `elaborator` has the last word.
"""

from __future__ import annotations

import re

_WORDS = (
    # Holes, and proofs by what the kernel does not check itself.
    "sorry|admit|sorryAx|native_decide|ofReduceBool|trustCompiler|debug|stop",
    # Programs that run during elaboration.
    "run_tac|by_elab|eval|unsafe|IO|initialize|builtin_initialize|simproc",
    # Commands: Lean ends a proof where the next command begins.
    "open|set_option|theorem|lemma|def|axiom|abbrev|opaque|example|instance|structure|inductive",
    "class|macro|macro_rules|notation|syntax|elab|elab_rules|infix|infixl|infixr|prefix|postfix",
    "attribute|namespace|section|end|universe|variable|export|mutual|deriving|local|scoped",
    "private|protected|noncomputable|partial|declare_syntax_cat|register_simp_attr",
    "register_option|import|public|meta|include|omit|compile_inductive|unseal|seal|add_decl_doc",
)
_FORBIDDEN = re.compile(rf"(?<![\w.])({'|'.join(_WORDS)})(?!\w)|--|/-|-/|[#\"«»`]|%")


def checked_tactic(text: str) -> str:
    """`text` as one line of Lean that is a tactic.

    Raises ValueError for anything that is, or may hold, a command.
    """
    text = " ".join(text.split())
    if not re.match(r"[a-z(<|]", text):
        raise ValueError("a tactic begins with a small letter")
    if found := _FORBIDDEN.search(text):
        raise ValueError(
            f"{found[0]} is refused: one tactic, no command, comment, string or program"
        )
    return text
