// Window files, and where windows go.
#include <random>

#include "engines/caffe/data/window_crop.h"
#include "engines/caffe/data/window_list.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;

WindowList parse(const std::string& text, const WindowThresholds& thresholds = {}) {
  return parse_window_list(text, thresholds, "w.txt");
}
std::string error(const std::string& text) {
  return error_of([&] { static_cast<void>(parse(text)); });
}

TEST(WindowList, PartsObjectsFromBackgroundByTheirOverlap) {
  const WindowList list = parse(
      "# 0\n/a.jpg\n3 40 50\n4\n7 0.5 1 2 3 4\n7 0.49 5 6 7 8\n9 0.3 9 9 9 9\n0 0 0 0 10 10\n"
      "# 1\n/b.jpg 3 8 8 1 2 1.0 0 0 7 7\n",
      {.foreground = 0.5F, .background = 0.3F});
  EXPECT_EQ(list.images, (std::vector<std::string>{"/a.jpg", "/b.jpg"}));
  ASSERT_EQ(list.foreground.size(), 2u);
  EXPECT_EQ(list.foreground[0].label, 7);
  EXPECT_EQ(list.foreground[0].y1, 2);
  EXPECT_EQ(list.foreground[0].x2, 3);
  EXPECT_EQ(list.foreground[0].line, 5u);
  EXPECT_EQ(list.foreground[1].image, 1u);
  EXPECT_EQ(list.foreground[1].line, 10u);
  ASSERT_EQ(list.background.size(), 1u);  // 0.3 is not below 0.3, in float as Caffe compares them
  EXPECT_EQ(list.background[0].label, 0);
  EXPECT_EQ(list.background[0].x2, 10);
}

TEST(WindowList, GivesBackgroundTheLabelZero) {
  const WindowList list = parse("# 0\n/a.jpg\n3 40 50\n1\n7 0.1 1 2 3 4\n");
  ASSERT_EQ(list.background.size(), 1u);
  EXPECT_EQ(list.background[0].label, 0);
}

TEST(WindowList, NamesTheLineThatIsWrong) {
  EXPECT_EQ(error(""), "w.txt: lists no image");
  EXPECT_EQ(error("0\n/a.jpg"), "w.txt:1: an image begins with # and its number");
  EXPECT_EQ(error("# 1\n/a.jpg\n3 4 5\n0\n"),
            "w.txt:1: image 1 comes where image 0 should be; images are numbered 0, 1, 2, ...");
  EXPECT_EQ(error("# 0\n/a.jpg\n1 4 5\n0\n"), "w.txt:3: an image of 1 channels; images are read with three");
  EXPECT_EQ(error("# 0\n/a.jpg\n3 x 5\n0\n"), "w.txt:3: \"x\" is not the image's height");
  EXPECT_EQ(error("# 0\n/a.jpg\n3 4 5\n2\n1 0.9 0 0 1 1\n"),
            "w.txt:5: the file ends where a window's class (a whole number) should be; it is truncated");
  EXPECT_EQ(error("# 0\n/a.jpg\n3 4 5\n1\n1 0.9 0 0 1\n# 1\n"),
            "w.txt:6: \"#\" is not a window's x1, y1, x2 or y2 (a whole number, from 0 on)");
  EXPECT_EQ(error("# 0\n/a.jpg\n3 4 5\n1\n1 0.9 2 0 1 1\n"),
            "w.txt:5: a window from 2 0 to 1 1 has nothing in it; its corners are x1 y1 x2 y2, upper left first");
  EXPECT_NE(error("# 0\n/a.jpg\n3 4 5\n1\n0 0.9 0 0 1 1\n").find("class 0 is the background's"), std::string::npos);
  EXPECT_NE(error("# 0\n/a.jpg\n3 4 5\n1\n1 nan 0 0 1 1\n").find("\"nan\" is not a window's overlap"),
            std::string::npos);
  EXPECT_NE(error("# 0\n/a.jpg\n3 4 5\n99999999999999999999\n").find("is not the number of windows"),
            std::string::npos);
}

// 1,000 files with bytes changed, lost or repeated: a list or a sentence, and windows that are what they should be.
TEST(WindowList, SurvivesMutations) {
  const std::string whole =
      "# 0\n/a.jpg\n3 40 50\n3\n7 0.5 1 2 3 4\n7 0.49 5 6 7 8\n9 0.3 9 9 9 9\n# 1\n/b.jpg\n3 8 8\n1\n2 1.0 0 0 7 7\n";
  int refused = 0;
  for (unsigned seed = 0; seed < 1000; ++seed) {
    std::mt19937 dice(seed);
    std::string text = whole;
    for (unsigned hit = 0; hit <= dice() % 4; ++hit) {
      const std::size_t place = dice() % text.size();
      switch (dice() % 4) {
        case 0:
          text[place] = static_cast<char>(dice());
          break;
        case 1:
          text.erase(place, 1 + dice() % 5);
          break;
        case 2:
          text.insert(place, text.substr(dice() % text.size(), dice() % 12));
          break;
        default:
          text[place] = static_cast<char>('0' + dice() % 10);
      }
      if (text.empty()) text = "#";
    }
    try {
      const WindowList list = parse(text);
      for (const std::vector<Window>& windows : {list.foreground, list.background}) {
        for (const Window& window : windows) {
          EXPECT_LT(window.image, list.images.size());
          EXPECT_LE(window.x1, window.x2);
          EXPECT_LE(window.y1, window.y2);
        }
      }
    } catch (const ConfigError& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).rfind("w.txt:", 0), 0u) << error.what();
    }
  }
  EXPECT_GT(refused, 300);
  EXPECT_LT(refused, 1000);
}

Window window(int x1, int y1, int x2, int y2) {
  return {.label = 1, .x1 = x1, .y1 = y1, .x2 = x2, .y2 = y2};
}

void expect_placement(const Placement& actual, const Placement& wanted) {
  EXPECT_EQ(actual.cut_x, wanted.cut_x);
  EXPECT_EQ(actual.cut_y, wanted.cut_y);
  EXPECT_EQ(actual.cut_width, wanted.cut_width);
  EXPECT_EQ(actual.cut_height, wanted.cut_height);
  EXPECT_EQ(actual.left, wanted.left);
  EXPECT_EQ(actual.top, wanted.top);
  EXPECT_EQ(actual.width, wanted.width);
  EXPECT_EQ(actual.height, wanted.height);
}

TEST(WindowCrop, WarpsAWindowToTheWholeSquare) {
  expect_placement(place_window(window(3, 4, 12, 8), 20, 20, {.side = 6}, false), {3, 4, 10, 5, 0, 0, 6, 6});
}

// A window of 12 x 6 pixels, side 8 with 2 pixels around: the scale is 8 / 4 = 2. Half of it is 6 x 3 around (10, 9): x
// from 10 - 12 = -2 to 22, y from 9 - 6 = 3 to 15, so 25 x 13 pixels, 2 of them beyond the left edge and 3 beyond the
// right one of an image 20 wide. By 8 / 25 those are 0.64 and 0.96, 1 pixel each; what is cut, 20 x 13, becomes 6.4
// wide and 8 high.
TEST(WindowCrop, TakesContextAndLeavesRoomForWhatIsBeyondTheImage) {
  const Window wide = window(4, 6, 15, 11);
  for (const bool in_double : {false, true}) {
    const WindowCrop crop{.side = 8, .context_pad = 2, .in_double = in_double};
    expect_placement(place_window(wide, 20, 20, crop, false), {0, 3, 20, 13, 1, 0, 6, 8});
    expect_placement(place_window(wide, 20, 20, crop, true), {0, 3, 20, 13, 1, 0, 6, 8});
  }
  // An image 18 wide: 5 pixels beyond its right edge are 1.6, so mirrored it begins at 2; and 6 pixels are left.
  const WindowCrop crop{.side = 8, .context_pad = 2};
  expect_placement(place_window(wide, 18, 20, crop, false), {0, 3, 18, 13, 1, 0, 6, 8});
  expect_placement(place_window(wide, 18, 20, crop, true), {0, 3, 18, 13, 2, 0, 6, 8});
}

// Half of 12 x 6 is 6 x 3, of the square 6 x 6, around (10, 9): y from 3 to 15, x from 4 to 16.
TEST(WindowCrop, TakesTheLeastSquare) {
  expect_placement(place_window(window(4, 6, 15, 11), 20, 20, {.side = 8, .square = true}, false),
                   {4, 3, 13, 13, 0, 0, 8, 8});
}

TEST(WindowCrop, RefusesWhatIsNotInTheImage) {
  EXPECT_EQ(error_of([] { place_window(window(0, 0, 20, 5), 20, 20, {.side = 8}, false); }),
            "the window from 0 0 to 20 5 reaches beyond the image, which is 20 wide and 20 high");
}

TEST(WindowCrop, StaysInTheImageAndInTheSquare) {
  std::mt19937 random(4);
  const auto pick = [&](int least, int most) {
    return least + static_cast<int>(random() % static_cast<unsigned>(most - least + 1));
  };
  int placed_ones = 0;
  for (int round = 0; round < 2000; ++round) {
    const int width = pick(1, 60);
    const int height = pick(1, 60);
    const int x1 = pick(0, width - 1);
    const int y1 = pick(0, height - 1);
    const Window some = window(x1, y1, pick(x1, width - 1), pick(y1, height - 1));
    WindowCrop crop{.side = pick(1, 40)};
    crop.context_pad = pick(0, (crop.side - 1) / 2);
    crop.square = pick(0, 1) == 1;
    crop.in_double = pick(0, 1) == 1;
    try {
      const Placement placed = place_window(some, width, height, crop, pick(0, 1) == 1);
      ++placed_ones;
      EXPECT_GE(placed.cut_x, 0);
      EXPECT_GE(placed.cut_y, 0);
      EXPECT_LE(placed.cut_x + placed.cut_width, width);
      EXPECT_LE(placed.cut_y + placed.cut_height, height);
      EXPECT_GE(placed.left, 0);
      EXPECT_GE(placed.top, 0);
      EXPECT_LE(placed.left + placed.width, crop.side);
      EXPECT_LE(placed.top + placed.height, crop.side);
      EXPECT_GE(placed.width, 1);
      EXPECT_GE(placed.height, 1);
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("leaves not one pixel"), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(placed_ones, 1500);
}

}  // namespace
}  // namespace poseidon::caffe
