"""Packaging of ppo_agent; `make install` is the way to set up a checkout."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Packages and the folders that hold them; packages() adds the packages inside the folders.
PACKAGE_DIR = {"ppo_agent": "ppo_agent", "ppo_agent.networks": "networks", "ppo_agent.drivers": "drivers"}

# On Python 3.11 plain pip resolves what tf-agents 0.19.0 asks for, which is TensorFlow 2.15. From Python 3.12 on
# nothing satisfies its pins, so there its requirements are listed here and tf-agents itself is installed with
# `pip install --no-deps`; `import ppo_agent` says so while it is missing.
OLD, NEW = '; python_version < "3.12"', '; python_version >= "3.12"'

INSTALL_REQUIRES = [
    "absl-py>=1.0",
    "gymnasium>=1.0",
    "matplotlib>=3.7",
    "tqdm>=4.60",
    "tf-agents==0.19.0" + OLD,
    "tensorflow>=2.15.1,<2.16" + OLD,
    "tensorflow-probability>=0.23,<0.24" + OLD,
    "numpy>=1.26,<2" + OLD,
    "tensorflow>=2.21,<2.22" + NEW,
    "tf-keras>=2.21,<2.22" + NEW,
    "tensorboard>=2.20" + NEW,
    "tensorflow-probability>=0.25,<0.26" + NEW,
    "numpy>=2.0,<2.4" + NEW,
    "cloudpickle>=1.3" + NEW,
    "gin-config>=0.5" + NEW,
    "gym==0.23.0" + NEW,
    "pillow" + NEW,
    "pygame>=2.6.1" + NEW,
    # Brings back distutils, which tf-agents imports.
    "setuptools" + NEW,
    "six>=1.10" + NEW,
]

# gymnasium's own extras ask for pygame-ce, which overwrites the files of the pygame that tf-agents asks for.
EXTRAS_REQUIRE = {
    "mujoco": ["mujoco>=3.0", "imageio>=2.14"],
    "box2d": ["box2d==2.3.10", "pygame>=2.1.3"],
    "atari": ["ale-py>=0.10"],
    "data": ["minari>=0.5"],
    "envpool": ["envpool>=1.2"],
    "mlflow": ["mlflow-skinny>=2.14"],
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
    "ray": ["ray>=2.40"],
    "search": ["optuna>=4.0"],
    "serve": ["fastapi>=0.110", "uvicorn>=0.29"],
    "tflite": ["ai-edge-litert>=1.0" + NEW],
    "wandb": ["wandb>=0.17"],
    "video": ["moviepy>=1.0", "pygame>=2.1.3"],
    "dev": [
        "hypothesis",
        "ipykernel" + NEW,
        "mypy" + NEW,
        "nbmake" + NEW,
        "pytest>=8",
        "pytest-xdist>=3",
        "ruff",
        "scipy",
        "twine" + NEW,
    ],
}


def readme() -> str:
    """Returns the README, or nothing while there is none."""
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def packages() -> list[str]:
    """Returns the mapped packages and what lies inside them."""
    inner = [f"{package}.{name}" for package, folder in PACKAGE_DIR.items() for name in find_packages(HERE / folder)]
    return [*PACKAGE_DIR, *inner]


setup(
    name="ppo_agent",
    version="1.0.0",
    description="Proximal policy optimisation for TensorFlow and TF-Agents: right, fast and deployable.",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The ppo_agent authors",
    keywords=["reinforcement learning", "PPO", "TensorFlow", "TF-Agents", "gymnasium"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=packages(),
    package_dir=PACKAGE_DIR,
    package_data={"ppo_agent": ["py.typed"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={
        "console_scripts": [
            "ppo-train = ppo_agent.train:cli",
            "ppo-eval = ppo_agent.evaluate:cli",
            "ppo-export = ppo_agent.export_command:cli",
            "ppo-plot = ppo_agent.plot_command:cli",
            "ppo-sweep = ppo_agent.sweep_command:cli",
        ],
    },
    zip_safe=False,
)
