import builtins
import json
import random
import struct
import wave
from itertools import pairwise

import mido
import numpy as np
import pytest
import torch

import rlgen_cli
from rlgen_cli.core.errors import UserError
from rlgen_cli.domains.music.datasets.chorale_file import read_chorales
from rlgen_cli.domains.music.datasets.midi_file import Rejected, melody, read_folder, read_midi
from rlgen_cli.domains.music.datasets.tunes import TUNES, tonal_melody, tune
from rlgen_cli.domains.music.instruments import INSTRUMENTS, program_of
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.domains.music.notes import Note, Piece
from rlgen_cli.domains.music.piano_roll import (
    AXIS,
    BAR,
    CURSOR,
    NUMBERS,
    VOICES,
    roll,
    roll_film,
    roll_grid,
    row_height,
)
from rlgen_cli.domains.music.sound import PEAK, RATE, synthesise, write_wav
from tests.conftest import SHARED, needs_shared, small

WHITE_KEYS = {0, 2, 4, 5, 7, 9, 11}
DUET = Piece(
    (
        Note(0, 4, 72, 90, 0),
        Note(0, 8, 67, 90, 0),
        Note(0, 16, 48, 60, 1),
        Note(4, 4, 72, 100, 0),
        Note(9, 1, 74, 1, 0),
        Note(16, 3, 47, 127, 1),
    ),
    bar=12,
    tempo=97.0,
    name="duet",
)


def message(kind, time=0, **values):
    make = mido.MetaMessage if kind in ("set_tempo", "time_signature", "track_name") else mido.Message
    return make(kind, time=time, **values)


def saved(path, *tracks, ticks=96, kind=1):
    """A MIDI file of (message type, time, values …) lists."""
    built = [mido.MidiTrack([message(name, time, **values) for name, time, values in track]) for track in tracks]
    mido.MidiFile(type=kind, ticks_per_beat=ticks, tracks=built).save(path)
    return path


def on(time, note, channel=0, velocity=80):
    return "note_on", time, {"note": note, "channel": channel, "velocity": velocity}


def off(time, note, channel=0):
    return "note_off", time, {"note": note, "channel": channel}


# MIDI


@pytest.mark.parametrize("piece", [DUET, *TUNES[:7], tonal_melody(random.Random(3), 8)._replace(name="made")])
def test_a_piece_survives_a_midi_file(tmp_path, piece):
    path = tmp_path / f"{piece.name}.mid"
    write_midi(path, piece)
    assert read_midi(path) == piece
    first = path.read_bytes()
    write_midi(path, piece)
    assert path.read_bytes() == first


def test_written_files_have_a_track_a_voice_and_end_notes_before_they_start_again(tmp_path):
    write_midi(tmp_path / "duet.mid", DUET)
    file = mido.MidiFile(tmp_path / "duet.mid")
    assert file.type == 1
    assert len(file.tracks) == 2
    assert [m.type for m in file.tracks[0]][:2] == ["set_tempo", "time_signature"]
    again = [(m.type, m.note) for m in file.tracks[0] if not m.is_meta]
    assert again.index(("note_off", 72)) < again.index(("note_on", 72), 1 + again.index(("note_on", 72)))
    many = Piece(tuple(Note(0, 4, 60 + voice, voice=voice) for voice in range(20)))
    write_midi(tmp_path / "many.mid", many)
    channels = {m.channel for track in mido.MidiFile(tmp_path / "many.mid").tracks for m in track if not m.is_meta}
    assert 9 not in channels
    assert len(read_midi(tmp_path / "many.mid").notes) == 20


@pytest.mark.parametrize(("bar", "signature"), [(16, (4, 4)), (12, (3, 4)), (18, (9, 8)), (15, (15, 16)), (8, (2, 4))])
def test_bars_become_time_signatures(tmp_path, bar, signature):
    write_midi(tmp_path / "a.mid", Piece((Note(0, 1, 60),), bar))
    (found,) = [m for m in mido.MidiFile(tmp_path / "a.mid").tracks[0] if m.type == "time_signature"]
    assert (found.numerator, found.denominator) == signature
    assert read_midi(tmp_path / "a.mid").bar == bar


def test_a_piece_without_notes_is_a_file_without_notes(tmp_path):
    write_midi(tmp_path / "a.mid", Piece((), tempo=1.0))
    with pytest.raises(Rejected, match="holds no notes"):
        read_midi(tmp_path / "a.mid")


def test_tracks_channels_tempo_changes_and_drums(tmp_path):
    head = [
        ("set_tempo", 0, {"tempo": 500000}),
        ("time_signature", 0, {"numerator": 6, "denominator": 8}),
        ("set_tempo", 96, {"tempo": 250000}),
        ("time_signature", 0, {"numerator": 4, "denominator": 4}),
    ]
    late = ("set_tempo", 384, {"tempo": 750000})
    low = [on(0, 40), on(0, 35, channel=9), off(192, 40), off(0, 35, channel=9)]
    both = [on(96, 60, channel=1), on(0, 80, channel=2), on(48, 60, channel=1, velocity=0), off(48, 80, channel=2)]
    piece = read_midi(saved(tmp_path / "x.mid", [late], head, low, both))
    assert piece == Piece((Note(0, 8, 40, 80, 2), Note(4, 4, 80, 80, 0), Note(4, 2, 60, 80, 1)), 12, 120.0, "x")


def test_defaults_where_a_file_is_silent_or_makes_no_sense(tmp_path):
    plain = read_midi(saved(tmp_path / "a.mid", [on(0, 60), off(96, 60)], kind=0))
    assert (plain.bar, plain.tempo) == (16, 120.0)
    odd = [("set_tempo", 0, {"tempo": 0}), ("time_signature", 0, {"numerator": 0}), on(0, 60), off(96, 60)]
    assert read_midi(saved(tmp_path / "b.mid", odd)) == plain._replace(name="b")


def test_times_go_to_the_nearest_sixteenth(tmp_path):
    track = [on(11, 60), off(2, 60), on(0, 61), off(25, 61), on(10, 62), off(0, 62)]  # a sixteenth is 24 ticks
    notes = read_midi(saved(tmp_path / "a.mid", track)).notes
    assert [(n.start, n.duration, n.pitch) for n in notes] == [(0, 1, 60), (1, 1, 61), (2, 1, 62)]


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ([on(0, 60), on(48, 60), off(48, 60), off(48, 60)], [(0, 2), (2, 4)]),  # overlapping
        ([on(0, 60), on(0, 60), off(24, 60), off(48, 60)], [(0, 3)]),  # together
        ([on(0, 60), on(24, 62), off(24, 62), ("track_name", 24, {"name": "end"})], [(0, 3), (1, 1)]),  # no end
        ([off(0, 60), on(24, 60), off(24, 60), off(24, 60)], [(1, 1)]),  # ends without a beginning
    ],
)
def test_untidy_notes(tmp_path, track, expected):
    notes = read_midi(saved(tmp_path / "a.mid", track)).notes
    assert [(n.start, n.duration) for n in notes] == expected


def header(kind=1, tracks=1, ticks=96):
    return b"MThd" + struct.pack(">Ihhh", 6, kind, tracks, ticks)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no music at all", "is no MIDI file"),
        (header(), "is cut short"),
        (header() + b"MTrk" + struct.pack(">I", 40) + b"\0\x90\x3c\x50", "is cut short"),
        (header() + b"MTrk" + struct.pack(">I", 4) + b"\0\x90\x3c\xff", "is no MIDI file"),
        (header() + b"MTrk" + struct.pack(">I", 3) + b"\0\x3c\x50", "is no MIDI file"),
        (header() + b"junk" + struct.pack(">I", 0), "is no MIDI file"),
        (header(tracks=0), "holds no notes"),
        (header(kind=2, tracks=0), "is of type 2"),
        (header(kind=7, tracks=0), "is of type 7"),
        (header(tracks=0, ticks=-6360), "film frames"),
        (header(tracks=0, ticks=0), "film frames"),
        (header() + b"MTrk" + struct.pack(">I", 11) + b"\0\x90\x3c\x50\xff\xff\xff\x7f\x80\x3c\0", "sixteenths, more"),
    ],
)
def test_broken_files_are_rejected_with_a_reason(tmp_path, content, reason):
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(Rejected, match=reason):
        read_midi(tmp_path / "a.mid")


def test_broken_bytes_raise_nothing_else(tmp_path):
    write_midi(tmp_path / "a.mid", DUET)
    content, rng = (tmp_path / "a.mid").read_bytes(), random.Random(0)
    outcomes: set[bool | str] = set()
    for _ in range(400):
        broken = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        (tmp_path / "b.mid").write_bytes(broken[: rng.choice((len(broken), rng.randrange(len(broken))))])
        try:
            outcomes.add(len(read_midi(tmp_path / "b.mid").notes) > 0)
        except Rejected as error:
            outcomes.add(str(error).split(" (")[0])
    assert {True, "is cut short", "is no MIDI file"} <= outcomes


def test_a_folder_reads_what_can_be_read(tmp_path):
    with pytest.raises(UserError, match=r"data\.path: there is no folder"):
        read_folder(tmp_path / "nowhere")
    root = tmp_path / "music"
    (root / "b").mkdir(parents=True)
    with pytest.raises(UserError, match=r"data\.path: .*music holds no MIDI file that can be read \(no \*\.mid"):
        read_folder(root)
    (root / "b" / "bad.mid").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no MIDI file that can be read \(first reason: b/bad\.mid is empty"):
        read_folder(root)
    write_midi(root / "b" / "two.MID", DUET)
    write_midi(root / "one.midi", TUNES[0])
    (root / "notes.txt").write_text("not music")
    pieces, rejected = read_folder(root)
    assert [piece.name for piece in pieces] == ["two", "one"]
    assert rejected == {"b/bad.mid": "is empty"}


def test_melody_is_the_top_line():
    line = melody(DUET)
    assert [(n.start, n.duration, n.pitch) for n in line.notes] == [(0, 4, 72), (4, 4, 72), (9, 1, 74), (16, 3, 47)]
    assert {n.voice for n in line.notes} == {0}
    held = Piece((Note(0, 8, 60, voice=1), Note(3, 2, 50, voice=2)))
    assert [(n.start, n.duration, n.pitch) for n in melody(held).notes] == [(0, 3, 60), (3, 2, 50)]
    assert melody(Piece(())).notes == ()


@pytest.mark.slow
@needs_shared("nottingham")
def test_nottingham_reads_whole():
    pieces, rejected = read_folder(SHARED / "nottingham")
    assert (len(pieces), rejected) == (1034, {})
    assert {piece.bar for piece in pieces} == {8, 12, 16, 18, 24}
    for piece in pieces:
        line = melody(piece).notes
        assert all(a.start + a.duration <= b.start for a, b in pairwise(line))
        assert {note.voice for note in piece.notes} == {0}
        assert all(50 <= note.pitch <= 90 and note.duration >= 1 for note in line)


# Chorales


def test_chorales_join_equal_pitches(tmp_path):
    rows = [[72, 67, 64, -1], [72, 67, 62, 48], [74, 67, -1, 48], [72, 67, 62, 48]]
    (tmp_path / "c.json").write_text(json.dumps({"train": [rows], "valid": [], "test": [rows[:1], rows]}))
    read = read_chorales(tmp_path / "c.json")
    assert {split: len(pieces) for split, pieces in read.items()} == {"train": 1, "valid": 0, "test": 2}
    piece = read["train"][0]
    assert [(n.start, n.duration, n.pitch) for n in piece.notes if n.voice == 0] == [(0, 2, 72), (2, 1, 74), (3, 1, 72)]
    assert [(n.start, n.duration, n.pitch) for n in piece.notes if n.voice == 2] == [(0, 1, 64), (1, 1, 62), (3, 1, 62)]
    assert [(n.start, n.duration, n.pitch) for n in piece.notes if n.voice == 3] == [(1, 3, 48)]
    assert [(n.start, n.voice) for n in piece.notes] == sorted((n.start, n.voice) for n in piece.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("{", "is no JSON"),
        ("\xff\xfe", "is no JSON"),
        ("[]", "must hold an object with the lists train, valid, test"),
        ('{"train": [], "valid": []}', "must hold an object with the lists"),
        ('{"train": [[[1, 2, 3]]], "valid": [], "test": []}', "train 0 must hold"),
        ('{"train": [], "valid": [[[1, 2, 3, 128]]], "test": []}', "valid 0 must hold"),
        ('{"train": [], "valid": [[[1, 2, 3, 4]], [[1, 2, 3, 4.5]]], "test": []}', "valid 1 must hold"),
        ('{"train": [], "valid": [], "test": [[]]}', "test 0 must hold"),
        ('{"train": [], "valid": [], "test": [7]}', "test 0 must hold"),
    ],
)
def test_bad_chorale_files_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "c.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=rf"data\.path: .*c\.json.*{message}|data\.path: {message}"):
        read_chorales(tmp_path / "c.json")


@needs_shared("jsb")
def test_the_real_chorales():
    path = SHARED / "jsb" / "Jsb16thSeparated.json"
    read, raw = read_chorales(path), json.loads(path.read_text())
    assert {split: len(pieces) for split, pieces in read.items()} == {"train": 229, "valid": 76, "test": 77}
    for split, pieces in read.items():
        for piece, rows in zip(pieces, raw[split], strict=True):
            grid = np.full((len(rows), 4), -1)
            for note in piece.notes:
                grid[note.start : note.start + note.duration, note.voice] = note.pitch
            assert (grid == np.array(rows)).all()


# Tunes


def test_tune_reads_pitches_rests_and_durations():
    piece = tune("C4:4 F#5:2 | R:3 Bb3:8 C-1:1", 12, 90.0, "x")
    assert piece == Piece((Note(0, 4, 60), Note(4, 2, 78), Note(9, 8, 58), Note(17, 1, 0)), 12, 90.0, "x")
    for bad in ("H4:4", "C4", "C4:0", "c4:4", "C4:4,"):
        with pytest.raises(UserError, match="is no note"):
            tune(bad, 16, 100.0, "x")


def test_embedded_tunes_stay_in_key_fill_their_bars_and_come_home():
    assert len(TUNES) >= 8
    assert len({piece.name for piece in TUNES}) == len(TUNES)
    for piece in TUNES:
        assert {note.pitch % 12 for note in piece.notes} <= WHITE_KEYS, piece.name
        assert all(55 <= note.pitch <= 81 for note in piece.notes), piece.name
        assert piece.notes[-1].pitch == 60, piece.name
        upbeat = 4 if piece.name == "Oh! Susanna" else 0
        assert (piece.steps - (upbeat and 16)) % piece.bar == 0, piece.name
        for line in range(upbeat, piece.steps, piece.bar):  # no note is held over a bar line
            assert any(note.start == line for note in piece.notes), (piece.name, line)


def contour(notes):
    """Rhythm and pitches from the first note on."""
    return [(n.start - notes[0].start, n.duration, n.pitch - notes[0].pitch) for n in notes]


def bars_of(piece, first, count):
    return [note for note in piece.notes if 16 * first <= note.start < 16 * (first + count)]


@pytest.mark.parametrize("bars", [4, 8, 12, 16, 32])
def test_made_melodies_are_tunes(bars):
    keys = set()
    for seed in range(40):
        piece = tonal_melody(random.Random(seed), bars)
        assert piece == tonal_melody(random.Random(seed), bars)
        minor = piece.name == "A minor"
        keys.add(piece.name)
        classes = [note.pitch % 12 for note in piece.notes]
        assert set(classes) <= WHITE_KEYS | ({8} if minor else set())
        assert sum(c in WHITE_KEYS for c in classes) > 0.8 * len(classes)
        assert all(55 <= note.pitch <= 81 for note in piece.notes)
        assert all(a.start + a.duration <= b.start for a, b in pairwise(piece.notes))
        assert piece.steps == 16 * bars
        tonic = 9 if minor else 0
        triad = {(tonic + third) % 12 for third in ((0, 3, 7) if minor else (0, 4, 7))}
        assert piece.notes[-1].pitch % 12 == tonic
        assert piece.notes[-1].duration >= 8
        assert {n.pitch % 12 for n in bars_of(piece, 0, 1) if n.start % 8 == 0} <= triad
        if bars > 4:
            half = bars_of(piece, 3, 1)
            assert {n.pitch % 12 for n in (half[0], half[-1])} <= {(tonic + d) % 12 for d in (7, 10, 11, 2)}
    assert keys == {"C major", "A minor"}


def test_made_melodies_repeat_their_motif_and_go_by_step():
    intervals = []
    for seed in range(60):
        piece = tonal_melody(random.Random(seed), 16)
        first = contour(bars_of(piece, 0, 2))
        assert contour(bars_of(piece, 4, 2)) == first
        assert contour(bars_of(piece, 12, 2)) == first
        assert contour(bars_of(piece, 8, 2)) != first
        rhythm = [(start, duration) for start, duration, _ in contour(bars_of(piece, 0, 1))]
        assert [(start, duration) for start, duration, _ in contour(bars_of(piece, 2, 1))] == rhythm
        short = tonal_melody(random.Random(seed), 4)
        one, two = (contour(bars_of(short, bar, 1)) for bar in (0, 1))
        assert [n[:2] for n in one] == [n[:2] for n in two]
        intervals += [abs(a.pitch - b.pitch) for a, b in pairwise(piece.notes)]
    assert np.mean(np.array(intervals) <= 2) > 0.7
    assert np.mean(np.array(intervals) > 7) < 0.03
    assert len({tonal_melody(random.Random(seed), 8).notes for seed in range(100)}) == 100


def test_melodies_have_phrases_of_four_bars():
    for bars in (0, -4, 6):
        with pytest.raises(UserError, match="bars: must be a multiple of 4"):
            tonal_melody(random.Random(0), bars)


# Sound


def read_wav(path):
    with wave.open(str(path)) as file:
        return file.getparams(), np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(int)


def loudest(sound, rate):
    """The strongest frequency, to about a hertz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * rate))
    return spectrum.argmax() / 4


def test_wav_files_have_length_and_headroom(tmp_path):
    crowd = Piece(tuple(Note(s, 12, 48 + 5 * v + s, 127, v) for v in range(6) for s in range(0, 32, 2)), tempo=120.0)
    write_wav(tmp_path / "a.wav", crowd)
    params, samples = read_wav(tmp_path / "a.wav")
    assert (params.nchannels, params.sampwidth, params.framerate) == (1, 2, RATE)
    seconds = crowd.steps / 4 * 60 / crowd.tempo
    assert seconds < params.nframes / RATE < seconds + 0.2
    assert np.abs(samples).max() == round(PEAK * 32767)
    assert abs(samples[-1]) < 3
    first = (tmp_path / "a.wav").read_bytes()
    write_wav(tmp_path / "a.wav", crowd)
    assert (tmp_path / "a.wav").read_bytes() == first


@pytest.mark.parametrize(("pitch", "frequency"), [(69, 440.0), (60, 261.6), (81, 880.0)])
def test_notes_sound_at_their_pitch(pitch, frequency):
    sound = synthesise(Piece((Note(0, 8, pitch),), tempo=60.0))
    assert sound.dtype == np.float32
    assert abs(loudest(sound, RATE) - frequency) < 1


def test_tones_neither_click_nor_alias():
    rate = 8000
    sound = synthesise(Piece((Note(0, 8, 100),), tempo=60.0), rate)  # 2637 Hz: the second harmonic is past 4 kHz
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), rate))
    assert spectrum.argmax() == pytest.approx(2637, abs=1)
    assert spectrum[:2400].max() < 1e-3 * spectrum.max()
    assert spectrum[2900:].max() < 1e-3 * spectrum.max()
    low = synthesise(Piece((Note(0, 4, 45), Note(4, 4, 45)), tempo=60.0))
    assert np.abs(np.diff(low)).max() < 0.25
    assert np.abs(low[:10]).max() < 0.01
    assert np.abs(low[-10:]).max() < 0.01
    assert not synthesise(Piece((Note(0, 4, 108),)), 4000).any()


def test_soft_notes_are_softer_and_notes_fade():
    sound = synthesise(Piece((Note(0, 4, 69, 120), Note(8, 4, 69, 30)), tempo=60.0))
    loud, soft = np.abs(sound[:RATE]).max(), np.abs(sound[2 * RATE : 3 * RATE]).max()
    assert 0.05 < soft / loud < 0.3
    assert np.abs(sound[RATE * 3 // 4 : RATE]).max() < 0.5 * loud
    assert np.abs(sound[RATE * 5 // 4 : 2 * RATE]).max() == 0


def test_a_piece_without_notes_is_silent(tmp_path):
    write_wav(tmp_path / "a.wav", Piece((), tempo=60.0))
    params, samples = read_wav(tmp_path / "a.wav")
    assert not samples.any()
    assert 4 < params.nframes / RATE < 4.2


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content


def sine_font(period=100, rate=44100):
    """The least SF2: one preset, one instrument, one looped sine that sounds at `rate` / `period` for A4."""
    sine = np.round(20000 * np.sin(2 * np.pi * np.arange(20 * period) / period)).astype("<i2").tobytes() + bytes(92)
    name = b"sine".ljust(20, b"\0")
    links = [
        (b"phdr", name + struct.pack("<HHHIII", 0, 0, 0, 0, 0, 0) + name + struct.pack("<HHHIII", 0, 0, 1, 0, 0, 0)),
        (b"pbag", struct.pack("<4H", 0, 0, 1, 0)),
        (b"pmod", bytes(10)),
        (b"pgen", struct.pack("<4H", 41, 0, 0, 0)),
        (b"inst", name + struct.pack("<H", 0) + name + struct.pack("<H", 1)),
        (b"ibag", struct.pack("<4H", 0, 0, 2, 0)),
        (b"imod", bytes(10)),
        (b"igen", struct.pack("<6H", 54, 1, 53, 0, 0, 0)),
        (b"shdr", name + struct.pack("<5IBbHH", 0, 20 * period, 0, 10 * period, rate, 69, 0, 0, 1) + bytes(46)),
    ]
    info = chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1)))
    data = chunk(b"LIST", b"sdta" + chunk(b"smpl", sine))
    tables = chunk(b"LIST", b"pdta" + b"".join(chunk(*link) for link in links))
    return chunk(b"RIFF", b"sfbk" + info + data + tables)


def test_a_soundfont_plays_the_piece(tmp_path):
    pytest.importorskip("tinysoundfont")
    (tmp_path / "sine.sf2").write_bytes(sine_font())
    piece = Piece((Note(0, 8, 69), Note(16, 8, 81, voice=1)), tempo=60.0)
    write_wav(tmp_path / "a.wav", piece, tmp_path / "sine.sf2")
    params, samples = read_wav(tmp_path / "a.wav")
    rate = params.framerate
    assert np.abs(samples).max() == round(PEAK * 32767)
    assert params.nframes / rate == pytest.approx(7, abs=0.01)
    assert abs(loudest(samples[: 2 * rate], rate) - 441) < 2
    assert abs(loudest(samples[4 * rate : 6 * rate], rate) - 882) < 2
    assert np.abs(samples[3 * rate : 4 * rate]).max() < 100
    write_wav(tmp_path / "b.wav", Piece(()), tmp_path / "sine.sf2")
    assert not read_wav(tmp_path / "b.wav")[1].any()
    (tmp_path / "bad.sf2").write_bytes(b"no soundfont")
    with pytest.raises(UserError, match=r"soundfont: .*bad\.sf2 cannot be read"):
        write_wav(tmp_path / "a.wav", piece, tmp_path / "bad.sf2")


def test_a_soundfont_without_the_instrument_is_named(tmp_path):
    pytest.importorskip("tinysoundfont")
    (tmp_path / "sine.sf2").write_bytes(sine_font())
    with pytest.raises(UserError, match=r"soundfont: .*sine\.sf2 has no instrument 41, violin\."):
        write_wav(tmp_path / "a.wav", DUET, tmp_path / "sine.sf2", program=40)


def test_soundfonts_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"soundfont: there is no file .*none\.sf2"):
        write_wav(tmp_path / "a.wav", DUET, tmp_path / "none.sf2")
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "tinysoundfont":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.sf2").write_bytes(b"")
    with pytest.raises(UserError, match=r"soundfont: needs tinysoundfont: pip install 'rlgen\[soundfont\]'"):
        write_wav(tmp_path / "a.wav", DUET, tmp_path / "a.sf2")


def test_instruments_sound_differently_and_hold_or_fade():
    """After three seconds a bowed tone is almost as loud as at first, a plucked one is gone; both have their pitch."""
    piece = Piece((Note(0, 16, 69),), tempo=60.0)
    guitar, violin = (synthesise(piece, program=program_of(name)) for name in ("nylon guitar", "violin"))
    for sound, left in ((guitar, (0.0, 0.05)), (violin, (0.5, 1.0))):
        early, late = (np.abs(sound[round(at * RATE) : round((at + 0.2) * RATE)]).max() for at in (0.1, 3.0))
        assert left[0] <= late / early <= left[1]
        assert abs(loudest(sound[:RATE], RATE) - 440) < 2
    assert np.array_equal(synthesise(piece), synthesise(piece, program=0))
    assert not np.array_equal(synthesise(piece, program=40), synthesise(piece, program=56))


# Instruments


def test_instruments_have_general_midis_numbers():
    assert len(INSTRUMENTS) == len(set(INSTRUMENTS)) == 128
    named = {"acoustic grand piano": 1, "church organ": 20, "violin": 41, "trumpet": 57, "flute": 74, "gunshot": 128}
    for name, number in named.items():
        assert program_of(name) == program_of(number) == number - 1
    assert program_of("Church_Organ") == 19


@pytest.mark.parametrize(
    ("given", "said"),
    [(0, "got 0, as in violin."), (129, "got 129"), ("violine", "did you mean violin"), (True, "got True")],
)
def test_an_instrument_that_there_is_not(given, said):
    with pytest.raises(UserError, match=f"instrument: must be from 1 to 128, or a name of General MIDI, .*{said}"):
        program_of(given)


def test_tracks_are_named_and_have_an_instrument(tmp_path):
    write_midi(tmp_path / "a.mid", DUET, 19, ("Upper", "Lower"))
    tracks = mido.MidiFile(tmp_path / "a.mid").tracks
    assert [track.name for track in tracks] == ["Upper", "Lower"]
    changes = [[(m.channel, m.program) for m in track if m.type == "program_change"] for track in tracks]
    assert changes == [[(0, 19)], [(1, 19)]]
    assert read_midi(tmp_path / "a.mid").notes == DUET.notes


@pytest.fixture(scope="module")
def chorale(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chorale") / "run"
    rlgen_cli.train(*small("env=music", "encoding=chorale", "agent=random", "reward=harmony"), folder=folder)
    return folder


def test_a_run_of_chorales_is_written_for_four_voices_at_another_tempo(chorale, rlgen, tmp_path):
    words = ["sample", f"run={chorale}", "n=2", "format=[midi,wav]"]
    assert rlgen(*words, "out=plain")[0] == 0
    assert rlgen(*words, "tempo=50", "instrument=church organ", "out=slow")[0] == 0
    plain, slow = (mido.MidiFile(tmp_path / folder / "000.mid") for folder in ("plain", "slow"))
    for file, tempo, programs in ((plain, 100, []), (slow, 50, [19] * 4)):
        assert [track.name for track in file.tracks] == ["Soprano", "Alto", "Tenor", "Bass"]
        assert [m.tempo for m in file.tracks[0] if m.type == "set_tempo"] == [60_000_000 / tempo]
        assert [m.program for track in file.tracks for m in track if m.type == "program_change"] == programs
    seconds = [read_wav(tmp_path / folder / "000.wav")[0].nframes / RATE for folder in ("plain", "slow")]
    assert slow.length == pytest.approx(2 * plain.length)
    assert seconds == pytest.approx([plain.length, slow.length], abs=0.1)  # and a tone's end


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tempo=10", "tempo: must be a number from 20 to 400, got 10."),
        ("instrument=violine", "did you mean violin"),
        ("plotter.pens=3", "plotter: draws strokes, and this run makes none."),
    ],
)
def test_what_music_cannot_have_is_said_in_a_sentence(word, said, chorale, rlgen):
    code, _, err = rlgen("sample", f"run={chorale}", word)
    assert (code, err.strip().count("\n")) == (2, 0)
    assert said in err


# Pictures


def at(picture, step, pitch, high, scale):
    """The colour in the middle of a cell."""
    x, y = step * scale + scale // 2, (high - pitch) * row_height(scale) + row_height(scale) // 2
    return tuple(picture[:, y, x].tolist())


def distance(one, two):
    return sum(abs(a - b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_rolls_show_notes_where_they_are(scale):
    picture = roll(DUET, 24, 40, 80, scale)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 41 * row_height(scale), 24 * scale)
    empty = at(picture, 1, 59, 80, scale)
    assert min(empty) > 235
    for note in DUET.notes:
        onset = picture[:, (80 - note.pitch) * row_height(scale), note.start * scale]
        assert int(onset.sum()) < sum(empty) - 200
        if note.duration > 1 and scale > 1:
            body = at(picture, note.start + 1, note.pitch, 80, scale)
            assert int(onset.sum()) < sum(body) - 60
            assert distance(body, VOICES[note.voice]) < distance(body, VOICES[1 - note.voice])
    assert distance(at(picture, 8, 48, 80, scale), empty) > 100
    assert distance(at(picture, 9, 72, 80, scale), empty) < 30


def test_rolls_show_velocity_bars_and_black_keys():
    piece = Piece((Note(1, 2, 60, 20), Note(5, 2, 60, 120), Note(30, 9, 60), Note(0, 4, 90)), bar=12)
    picture = roll(piece, 24, 55, 66, 4)
    soft, loud = at(picture, 2, 60, 66, 4), at(picture, 6, 60, 66, 4)
    assert sum(loud) < sum(soft) - 100
    assert tuple(picture[:, 0, 12 * 4].tolist()) == BAR
    assert tuple(picture[:, 0, 8 * 4].tolist()) != BAR
    assert sum(at(picture, 1, 58, 66, 4)) < sum(at(picture, 1, 59, 66, 4))
    upper, lower = Note(0, 4, 60), Note(0, 4, 60, voice=1)
    assert torch.equal(roll(Piece((upper, lower)), 16, 55, 66), roll(Piece((upper,)), 16, 55, 66))
    alone = roll(piece._replace(notes=piece.notes[:2]), 24, 55, 66, 4)
    assert torch.equal(picture, alone)  # what lies outside is left out


def test_grids_share_range_and_length():
    pieces = [DUET, TUNES[0], Piece(())]
    sheet = roll_grid(pieces, columns=2, scale=4, gap=6)
    high, wide = (74 + 2 - (47 - 2) + 1) * row_height(4) + NUMBERS + 6, TUNES[0].steps * 4 + AXIS + 6
    assert sheet.dtype == torch.uint8
    assert sheet.shape == (3, 2 * high + 6, 2 * wide + 6)
    assert (sheet[:, -20, wide + 20 :] == sheet[:, :1, 0]).all()  # no fourth roll
    first = sheet[:, 6 + NUMBERS : high, 6 + AXIS : wide]
    assert torch.equal(first[:, :, : 24 * 4], roll(DUET, 192, 45, 76)[:, :, : 24 * 4])
    least = roll_grid([Piece((Note(0, 4, 60),))], scale=4, gap=0)
    assert least.shape == (3, 13 * row_height(4) + NUMBERS, 16 * 4 + AXIS)


def dark(picture):
    """Where letters are."""
    return picture.float().mean(0) < 130


@pytest.mark.parametrize(
    ("scale", "named"), [(12, [60, 62, 64, 65, 67, 69, 71, 72]), (4, [60, 64, 67, 72]), (2, [60, 72])]
)
def test_as_many_pitches_are_named_as_have_room(scale, named):
    piece = Piece((Note(0, 4, 62), Note(0, 4, 70)), bar=16)  # rows 60 to 72
    names = dark(roll_grid([piece], scale=scale, gap=0)[:, NUMBERS:, :AXIS]).any(1).tolist()
    height = row_height(scale)
    assert all(any(names[(72 - pitch) * height : (73 - pitch) * height]) for pitch in named)
    assert sum(inked and not above for above, inked in pairwise([False, *names])) == len(named)  # and no others


@pytest.mark.parametrize(("scale", "numbered"), [(8, [0, 1, 2, 3]), (2, [0, 2]), (1, [0])])
def test_as_many_bars_are_numbered_as_have_room(scale, numbered):
    piece = Piece((Note(0, 32, 60),), bar=8)
    above = dark(roll_grid([piece], scale=scale, gap=0)[:, :NUMBERS, AXIS:])
    bars = above.view(NUMBERS, 4, 8 * scale).any(2).any(0)
    assert torch.where(bars)[0].tolist() == numbered


def test_sheets_are_as_large_as_their_number_allows():
    piece = Piece((Note(0, 64, 60),))
    one, many = roll_grid([piece]), roll_grid([piece] * 16)
    assert one.shape[2] == 64 * 16 + AXIS + 12
    assert 1000 < many.shape[2] < 1600
    assert roll_grid([Piece((Note(0, 512, 60),))]).shape[2] == 512 * 4 + AXIS + 12


def test_an_empty_piece_says_so_and_voices_are_named():
    empty = roll_grid([Piece(())], gap=0)
    assert dark(empty[:, NUMBERS:, AXIS:]).any()
    plain, told = roll_grid([DUET]), roll_grid([DUET], voices=["Upper", "Lower"])
    legend = told[:, : told.shape[1] - plain.shape[1]]
    assert torch.equal(told[:, legend.shape[1] :], plain)
    assert all((legend == torch.tensor(colour).view(3, 1, 1).byte()).all(0).any() for colour in VOICES[:2])
    assert not (legend == torch.tensor(VOICES[2]).view(3, 1, 1).byte()).all(0).any()


def test_a_line_moves_over_the_roll_as_it_sounds():
    """At 60 beats a minute a second is four steps of sixteen pixels; two frames a second."""
    piece = Piece((Note(0, 16, 60),), tempo=60.0)
    frames = list(roll_film(piece, 2, 5.0))
    at = [
        torch.where((frame == torch.tensor(CURSOR).view(3, 1, 1).byte()).all(0).all(0))[0].tolist() for frame in frames
    ]
    starts = [6 + AXIS + 32 * i for i in range(8)] + [6 + AXIS + 255] * 2  # it waits at the end
    assert at == [[x - 1, x] for x in starts]
