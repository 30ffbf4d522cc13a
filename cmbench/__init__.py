"""cmbench: evaluate and benchmark few-step image generators."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmbench.notebook import LoadedModel, Samples, evaluate, load_model, results, strip

__version__ = "0.1.0"
__all__ = [
    "LoadedModel",
    "Samples",
    "__version__",
    "evaluate",
    "load_model",
    "results",
    "strip",
]


def __getattr__(name: str) -> Any:
    """Brings the notebook functions at their first use: `import cmbench` stays light."""
    if name in __all__:
        from cmbench import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'cmbench' has no attribute '{name}'")
