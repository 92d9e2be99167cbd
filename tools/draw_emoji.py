"""Draws docs/emoji.png: an object of each class in each style. `python tools/draw_emoji.py`."""

from pathlib import Path

from matplotlib.figure import Figure

from gga_lightning.data import Emoji


def main() -> None:
    emoji = Emoji()
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(len(emoji.domains), emoji.num_classes)
    shared = set.intersection(*(set(style.groups) for style in emoji.domains.values()))
    noto = emoji.domains["noto"]
    pairs = zip(noto.groups, noto.targets.tolist(), strict=True)
    kept = [(group, target) for group, target in pairs if group in shared]
    members = [[g for g, t in kept if t == c] for c in range(emoji.num_classes)]
    for row, (name, style) in zip(axes, emoji.domains.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, groups in zip(row, members, strict=True):
            image = style.images[style.groups.index(groups[len(groups) // 2])]
            ax.imshow(image.permute(1, 2, 0))
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
    for ax, label in zip(axes[0], emoji.classes, strict=True):
        ax.set_title(label, fontsize=10)
    figure.savefig(Path(__file__).parents[1] / "docs" / "emoji.png", dpi=90)


if __name__ == "__main__":
    main()
