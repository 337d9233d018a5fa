"""The example's data set: its images, its split, and the data bases that come of them.

Usage: digits_test.py POSEIDON_DATA (the program; it takes `convert-images` like the command poseidon)
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

EXAMPLE = pathlib.Path(__file__).resolve().parents[3] / "examples" / "digits"
sys.path.insert(0, str(EXAMPLE))
sys.dont_write_bytecode = True
import make_images  # noqa: E402

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()


def read_list(file):
    return [(line.rsplit(" ", 1)[0], int(line.rsplit(" ", 1)[1])) for line in file.read_text().splitlines()]


class DigitsTest(unittest.TestCase):
    def test_random_words_are_those_of_the_published_generator(self):
        # The first outputs for the seed 1234567, as other implementations of SplitMix64 give them.
        words = make_images.random_words(1234567)
        self.assertEqual([next(words) for _ in range(3)],
                         [6457827717110365317, 3203168211198807973, 9817491932198370423])

    def test_images_are_those_of_the_data_set(self):
        digits = make_images.read_digits(EXAMPLE / "digits.csv.gz")
        # The class counts that the data set's own description gives for its test part.
        counts = [sum(1 for digit, _ in digits if digit == d) for d in range(10)]
        self.assertEqual(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
        self.assertEqual(make_images.pgm([0, 1, 8, 16] * 16)[11:15], bytes([0, 16, 128, 255]))

    def test_split_is_complete_and_the_same_everywhere(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            subprocess.run([sys.executable, EXAMPLE / "make_images.py", folder], check=True, stdout=subprocess.DEVNULL)
            train, test = read_list(folder / "train.txt"), read_list(folder / "test.txt")
            self.assertEqual((len(train), len(test)), (1437, 360))
            self.assertEqual(sorted(file for file, _ in train + test), [f"{i:04}.pgm" for i in range(1797)])
            digits = make_images.read_digits(EXAMPLE / "digits.csv.gz")
            for file, digit in train + test:
                self.assertEqual(digits[int(file[:4])][0], digit)
            # Whatever the version of Python: results are quoted for this split.
            self.assertEqual(hashlib.sha256((folder / "train.txt").read_bytes()).hexdigest(),
                             "f1669cec1ce780699f8c4033c6453cc110016bf8eb386470d829b01a9e59b9bd")

    def test_data_bases_are_made_once(self):
        with tempfile.TemporaryDirectory() as name:
            def run(*arguments):
                return subprocess.run([EXAMPLE / "create_lmdb.sh", *arguments, name], check=True, text=True,
                                      stdout=subprocess.PIPE, env={**os.environ, "POSEIDON": str(PROGRAM)}).stdout
            output = run()
            self.assertIn("1437 images [1, 28, 28] with 10 labels", output)
            self.assertIn("360 images [1, 28, 28] with 10 labels", output)
            data = pathlib.Path(name) / "digits_test_lmdb" / "data.mdb"
            made = data.stat().st_ino
            self.assertIn("exist already", run())
            self.assertEqual(data.stat().st_ino, made)
            self.assertIn("split by seed 2", run("--force", "--seed", "2"))
            self.assertNotEqual(data.stat().st_ino, made)


if __name__ == "__main__":
    unittest.main()
