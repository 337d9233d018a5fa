#include <stdlib.h>

#include "base/text.h"
#include "caffe/data/data_bases.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/proto/blob_file.h"

namespace poseidon::caffe {
namespace {

using testing::error_of;
using testing::expect_near;
using testing::Made;
using testing::make_layer;
using testing::values_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_pgm;

class ImageData : public ::testing::Test {
 protected:
  // Five gray images of two rows and three columns, pixels 10 i, 10 i + 1, ..., label i.
  void SetUp() override {
    ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
    std::string list;
    for (int i = 0; i < 5; ++i) {
      write_pgm(folder_ / base::concat(i, ".pgm"), 3, 2, 10 * i);
      list += base::concat(i, ".pgm ", i, "\n");
    }
    write_file(folder_ / "list.txt", list);
  }

  std::string text(std::string_view settings, std::string_view more = "") const {
    return base::concat("name: 'data' type: 'ImageData' top: 'data' top: 'label'\nimage_data_param { source: '",
                        (folder_ / "list.txt").string(), "' root_folder: '", folder_.path().string(), "/' ", settings,
                        " } ", more);
  }
  static std::vector<double> labels(Layer& layer, const ForwardContext& context) {
    return values_of(layer.forward(context, {})[1]);
  }

  TemporaryFolder folder_;
};

TEST_F(ImageData, YieldsImagesAndLabelsInTheOrderOfTheList) {
  Made made = make_layer(text("batch_size: 2 is_color: false"), {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 1, 2, 3}, {2}}));
  EXPECT_EQ(made.layer->records_per_batch(), 2u);
  const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 4, .record_stride = 2}, {});
  expect_near(tops[0], {40, 41, 42, 43, 44, 45, 0, 1, 2, 3, 4, 5}, 0);
  expect_near(tops[1], {4, 0}, 0);
}

TEST_F(ImageData, HasOneRecordAndThreeColoursByDefault) {
  Made made = make_layer(text(""), {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 3, 2, 3}, {1}}));
  expect_near(made.layer->forward({.first_record = 1}, {})[0],
              {10, 11, 12, 13, 14, 15, 10, 11, 12, 13, 14, 15, 10, 11, 12, 13, 14, 15}, 0);
}

TEST_F(ImageData, BringsImagesOfSeveralSizesToOne) {
  write_file(folder_ / "flat.pgm", std::string("P5\n5 4\n255\n") + std::string(20, '\x09'));
  write_file(folder_ / "list.txt", "flat.pgm 1\n0.pgm 0\n");
  Made made = make_layer(text("batch_size: 2 new_height: 2 new_width: 3 is_color: false"), {});
  EXPECT_EQ(made.tops[0], (Shape{2, 1, 2, 3}));
  expect_near(made.layer->forward({}, {})[0], {9, 9, 9, 9, 9, 9, 0, 1, 2, 3, 4, 5}, 0);

  Made unequal = make_layer(text("batch_size: 2 is_color: false"), {});
  const std::string error = error_of([&] { unequal.layer->forward({}, {}); });
  EXPECT_NE(
      error.find("record 1 (key 0.pgm): the image becomes [1, 2, 3], and the first one [1, 4, 5]; give crop_size, "
                 "or new_height and new_width"),
      std::string::npos)
      << error;
}

TEST_F(ImageData, TransformsImagesByEitherPlaceOfTheSettings) {
  // A square of 2 of the middle, which begins in column 0; 10, 11, 13, 14 less 4, halved.
  const std::vector<double> wanted = {3, 3.5, 4.5, 5};
  const ForwardContext second{.first_record = 1};
  Made now = make_layer(text("is_color: false", "transform_param { scale: 0.5 crop_size: 2 mean_value: 4 }"), {},
                        at::kDouble, Phase::kTest);
  expect_near(now.layer->forward(second, {})[0], wanted, 0);

  ASSERT_TRUE(proto::write_blob(folder_ / "mean.binaryproto", {{1, 1, 2, 3}, std::vector<float>(6, 4)}).ok());
  const std::string mean = base::concat("mean_file: '", (folder_ / "mean.binaryproto").string(), "'");
  Made older =
      make_layer(text(base::concat("is_color: false scale: 0.5 crop_size: 2 ", mean)), {}, at::kDouble, Phase::kTest);
  expect_near(older.layer->forward(second, {})[0], wanted, 0);
}

TEST_F(ImageData, MirrorsByTheOlderSettingToo) {
  Made older = make_layer(text("is_color: false mirror: true"), {});
  Made now = make_layer(text("is_color: false", "transform_param { mirror: true }"), {});
  int mirrored = 0;
  for (std::uint64_t record = 0; record < 40; record += 5) {
    const std::vector<double> image =
        values_of(older.layer->forward({.first_record = record, .record_stride = 5}, {})[0]);
    EXPECT_EQ(values_of(now.layer->forward({.first_record = record, .record_stride = 5}, {})[0]), image);
    mirrored += image == std::vector<double>{2, 1, 0, 5, 4, 3} ? 1 : 0;
  }
  EXPECT_GT(mirrored, 0);
  EXPECT_LT(mirrored, 8);
}

TEST_F(ImageData, ReadsOnManyWorkersWhatOneWorkerReads) {
  for (const char* const order : {"shuffle: false", "shuffle: true", "shuffle: true rand_skip: 4"}) {
    Made whole = make_layer(text(base::concat("batch_size: 4 ", order)), {});
    Made first = make_layer(text(base::concat("batch_size: 2 ", order)), {});
    Made second = make_layer(text(base::concat("batch_size: 2 ", order)), {});
    for (std::uint64_t begin = 0; begin < 20; begin += 4) {
      std::vector<double> both = labels(*first.layer, {.first_record = begin, .record_stride = 4});
      const std::vector<double> rest = labels(*second.layer, {.first_record = begin + 2, .record_stride = 4});
      both.insert(both.end(), rest.begin(), rest.end());
      EXPECT_EQ(labels(*whole.layer, {.first_record = begin, .record_stride = 4}), both) << order;
    }
  }
}

TEST_F(ImageData, ShufflesEveryPassAnew) {
  Made made = make_layer(text("batch_size: 5 shuffle: true"), {});
  std::vector<std::vector<double>> passes;
  for (std::uint64_t pass = 0; pass < 6; ++pass) {
    passes.push_back(labels(*made.layer, {.first_record = 5 * pass, .record_stride = 5}));
    std::vector<double> sorted = passes.back();
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, (std::vector<double>{0, 1, 2, 3, 4}));
  }
  std::sort(passes.begin(), passes.end());
  EXPECT_GT(std::unique(passes.begin(), passes.end()) - passes.begin(), 1);
  // Going back gives the same again.
  Made again = make_layer(text("batch_size: 5 shuffle: true"), {});
  const std::vector<double> third = labels(*made.layer, {.first_record = 10, .record_stride = 5});
  EXPECT_EQ(labels(*again.layer, {.first_record = 10, .record_stride = 5}), third);
}

TEST_F(ImageData, SkipsTheSameNumberOnEveryWorker) {
  const std::uint32_t skipped = base::RandomStream(1, "data.rand_skip").words(0, 0, 0)[0] % 3;
  Made made = make_layer(text("rand_skip: 3"), {});
  EXPECT_EQ(labels(*made.layer, {.first_record = 0}), std::vector<double>{static_cast<double>(skipped % 5)});
}

TEST_F(ImageData, ExplainsWhatIsWrong) {
  const auto error = [](std::string_view settings) {
    return testing::setup_error(
        base::concat("name: 'd' type: 'ImageData' top: 'data'\nimage_data_param { ", settings, " }"), {});
  };
  EXPECT_EQ(
      error("batch_size: 2"),
      "net.prototxt:2:1: layer \"d\" (ImageData) needs a list of image files: image_data_param { source: \"FILE\" }");
  EXPECT_EQ(error("source: 'x' batch_size: 0"),
            "net.prototxt:2:32: layer \"d\" (ImageData) needs batch_size, at least 1");
  EXPECT_EQ(
      error("source: 'x' new_width: 3"),
      "net.prototxt:2:32: layer \"d\" (ImageData) needs new_height and new_width together, or none of them to keep "
      "the images' sizes");
  EXPECT_EQ(error("source: 'x' new_height: 70000 new_width: 3"),
            "net.prototxt:2:32: layer \"d\" (ImageData) wants images of more than 65500 rows or columns");
  const std::string missing = error("source: '/nowhere/list.txt'");
  const std::string wanted =
      "net.prototxt:1:1: layer \"d\" (ImageData) cannot read its records: cannot read /nowhere/list.txt: ";
  EXPECT_EQ(missing.substr(0, wanted.size()), wanted);
  EXPECT_NE(testing::setup_error(text("scale: 2", "transform_param { scale: 2 }"), {})
                .find("scale stands in transform_param too; keep that one and remove this"),
            std::string::npos);
}

TEST_F(ImageData, NamesTheImageThatCannotBeDecoded) {
  write_file(folder_ / "1.pgm", "no image");
  Made made = make_layer(text("batch_size: 2"), {});
  const std::string error = error_of([&] { made.layer->forward({}, {}); });
  EXPECT_NE(error.find((folder_ / "list.txt").string() + ":2: " + (folder_ / "1.pgm").string() +
                       ": is no image that can be decoded"),
            std::string::npos)
      << error;
}

}  // namespace
}  // namespace poseidon::caffe
