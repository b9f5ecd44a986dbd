"""What the command line prints, whatever the width of a terminal."""

from types import SimpleNamespace

from anymodal.cli import console

PATH = "/a/folder with [brackets]/" + "long/" * 40 + "clip.wav"


def test_without_a_terminal_a_row_is_one_line(capsys, monkeypatch):
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    console.table("Files", ["file", "rows"], [[PATH, 3], ["b.wav", None]])
    console.out.print(f"written: {PATH}")
    title, head, first, second, line = capsys.readouterr().out.splitlines()
    assert (title, head.split(), first.split("  ")) == ("Files", ["file", "rows"], [PATH, "3"])
    assert (second, line) == ("b.wav", f"written: {PATH}")


def test_on_a_terminal_a_long_cell_is_folded_and_whole(capsys, monkeypatch):
    monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: 1)))
    monkeypatch.setattr(console.out, "_width", 40)
    console.table("Files", ["file"], [[PATH]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    rows = "".join(line.strip("│ ") for line in lines[4:-1])
    assert rows.replace(" ", "") == PATH.replace(" ", "")
