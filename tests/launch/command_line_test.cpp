#include "launch/command_line.h"

#include <gmock/gmock.h>

namespace poseidon::launch {
namespace {

using testing::ElementsAre;

TEST(CommandLine, IsPartedAsAShellWould) {
  EXPECT_THAT(*split_words("python train.py --lr 0.1"), ElementsAre("python", "train.py", "--lr", "0.1"));
  EXPECT_THAT(*split_words("  a\t'b c' \"d \\\"e\\\" \\n\" f\\ g '' "), ElementsAre("a", "b c", "d \"e\" \\n", "f g", ""));
  EXPECT_THAT(*split_words("CUDA_VISIBLE_DEVICES=1 python a.py"), ElementsAre("env", "CUDA_VISIBLE_DEVICES=1", "python", "a.py"));
  EXPECT_THAT(*split_words("./a=b c"), ElementsAre("./a=b", "c"));
  EXPECT_FALSE(split_words("python 'train.py").ok());
  EXPECT_FALSE(split_words("  ").ok());
}

TEST(CommandLine, HasOneCommandForEachWorkerOnlyWhereTheyAreAsMany) {
  EXPECT_THAT(*split_commands("python a.py, python b.py", 2), ElementsAre(ElementsAre("python", "a.py"), ElementsAre("python", "b.py")));
  EXPECT_THAT(*split_commands("python a.py --sizes 1,2", 3), ElementsAre(ElementsAre("python", "a.py", "--sizes", "1,2")));
  EXPECT_THAT(*split_commands("python a.py '1,2', python b.py \"3,4\"", 2),
              ElementsAre(ElementsAre("python", "a.py", "1,2"), ElementsAre("python", "b.py", "3,4")));
  EXPECT_THAT(*split_commands("python a.py", 1), ElementsAre(ElementsAre("python", "a.py")));
  EXPECT_FALSE(split_commands("python a.py,", 2).ok());
}

}  // namespace
}  // namespace poseidon::launch
