"""Three voices below a melody, by rule: what encoding=chorale has where no chorales are given."""

from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

CHORDS = ((0, 4, 7), (7, 11, 2), (5, 9, 0), (9, 0, 4), (2, 5, 9), (4, 7, 11))  # of C major, the likeliest first
RANGES = ((55, 74), (48, 67), (40, 57))  # alto, tenor, bass
LEAST = 60  # the lowest note of a soprano


def harmonised(melody: Piece) -> Piece | None:
    """The melody (in C major or A minor) as the first of four voices; None where it lies too low for a soprano.

    Each beat has the likeliest chord with the melody's note in it, other than the last beat's where there is a choice;
    the bass takes its root, the inner voices the nearest tones below the voice above.
    """
    if min(note.pitch for note in melody.notes) < LEAST:
        return None
    voices: list[list[Note]] = [[], [], []]
    before: tuple[int, int, int] | None = None
    for start in range(0, melody.steps, STEPS_PER_BEAT):
        sounding = [note for note in melody.notes if note.start <= start < note.start + note.duration]
        if not sounding:
            continue
        top = sounding[0].pitch
        fitting = [chord for chord in CHORDS if top % 12 in chord] or [before or CHORDS[0]]
        chord = next((c for c in fitting if c != before), fitting[0])
        above = top
        for voice, (low, high) in enumerate(RANGES):
            wanted = (chord[0],) if voice == 2 else chord
            tones = [pitch for pitch in range(low, min(high, above) + 1) if pitch % 12 in wanted]
            last = voices[voice][-1] if voices[voice] else None
            pitch = min(tones or [low], key=lambda p: abs(p - (last.pitch if last else (low + high) // 2)))
            if last and last.pitch == pitch and last.start + last.duration == start:
                voices[voice][-1] = last._replace(duration=last.duration + STEPS_PER_BEAT)
            else:
                voices[voice].append(Note(start, STEPS_PER_BEAT, pitch, voice=voice + 1))
            above = pitch
        before = chord
    notes = [*melody.notes, *(note for voice in voices for note in voice)]
    return melody._replace(notes=tuple(sorted(notes, key=lambda note: (note.start, note.voice))))
