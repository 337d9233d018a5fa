#include "launch/hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::launch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(const Result<Placement>& result) { return result ? "it was taken" : result.error().message; }

TEST(HostList, GivesEachHostItsSlots) {
  EXPECT_THAT(parse_host_list("a:2,b:1").value(), ElementsAre("a", "a", "b"));
  EXPECT_THAT(parse_host_list("a").value(), ElementsAre("a"));
  EXPECT_THAT(parse_host_list("a,b,a:2").value(), ElementsAre("a", "a", "a", "b")) << "a host that is named twice has both";
  EXPECT_THAT(parse_host_list("me@10.0.0.1:2,[fe80::1]:2,fe80::2,me@[fe80::3%eth0]").value(),
              ElementsAre("me@10.0.0.1", "me@10.0.0.1", "fe80::1", "fe80::1", "fe80::2", "me@fe80::3%eth0"));
}

TEST(HostList, SaysWhichEntryIsNone) {
  EXPECT_THAT(refusal(parse_host_list("")), HasSubstr("\"\" is no host"));
  EXPECT_THAT(refusal(parse_host_list("a,,b")), HasSubstr("\"\" is no host"));
  EXPECT_THAT(refusal(parse_host_list("a:0")), AllOf(HasSubstr("\"0\" slots of \"a\""), HasSubstr("from 1 to 4096")));
  EXPECT_THAT(refusal(parse_host_list("a:two")), HasSubstr("\"two\" slots"));
  EXPECT_THAT(refusal(parse_host_list("a:")), HasSubstr("\"\" slots"));
  EXPECT_THAT(refusal(parse_host_list("[fe80::1]4")), HasSubstr("after ] comes"));
  EXPECT_THAT(refusal(parse_host_list("a:4096,b")), HasSubstr("more than 4096 workers"));
}

// What goes to ssh as a host must not be read as a flag, or by a shell.
TEST(HostList, TakesNoFlagsAndNoShell) {
  for (const char* const text : {"-oProxyCommand=x", "a b", "a;b", "$(a)", "a@-b", "-a@b", "@b", "a@b@c", "a'b", "a\nb"}) {
    EXPECT_FALSE(is_host(text)) << text;
    EXPECT_FALSE(parse_host_list(text).ok()) << text;
  }
}

TEST(Hostfile, IsReadInEachStyle) {
  EXPECT_THAT(parse_hostfile("# the cluster\na slots=2\n\nb slots=1 max_slots=8  # small\n", "f").value(), ElementsAre("a", "a", "b"));
  EXPECT_THAT(parse_hostfile("a:2\r\nb\r\n", "f").value(), ElementsAre("a", "a", "b"));
  EXPECT_THAT(parse_hostfile("a\nb\na", "f").value(), ElementsAre("a", "a", "b"));
  EXPECT_THAT(parse_hostfile("a slots=2\nb:2\nc", "f").value(), ElementsAre("a", "a", "b", "b", "c"));
  EXPECT_THAT(parse_hostfile("1 10.0.0.2 9999\n0 10.0.0.1 9999\n2 10.0.0.1 10000\n", "f").value(),
              ElementsAre("10.0.0.1", "10.0.0.2", "10.0.0.1"))
      << "ids are ranks";
}

TEST(Hostfile, SaysWhereAndWhatIsWrong) {
  EXPECT_THAT(refusal(parse_hostfile("a\n b slot=2", "f")), AllOf(HasSubstr("f:2: "), HasSubstr("\"slot=2\" after the host \"b\"")));
  EXPECT_THAT(refusal(parse_hostfile("a slots=none", "f")), HasSubstr("f:1: \"none\" slots of \"a\""));
  EXPECT_THAT(refusal(parse_hostfile("a:2 slots=2", "f")), HasSubstr("both say how many slots"));
  EXPECT_THAT(refusal(parse_hostfile("\n-x", "f")), HasSubstr("f:2: \"-x\" is no host"));
  EXPECT_THAT(refusal(parse_hostfile("# nobody\n", "f")), HasSubstr("f: it names no host"));
  EXPECT_THAT(refusal(parse_hostfile("", "f")), HasSubstr("f: it names no host"));
}

TEST(Hostfile, WithIdsHasAllOfThemOnce) {
  EXPECT_THAT(refusal(parse_hostfile("0 a 1\n0 b 1", "f")), HasSubstr("f:2: id 0 has come before"));
  EXPECT_THAT(refusal(parse_hostfile("0 a 1\n2 b 1", "f")), HasSubstr("f: id 1 is missing"));
  EXPECT_THAT(refusal(parse_hostfile("0 a 1\nb", "f")), HasSubstr("f:2: this file numbers its hosts"));
  EXPECT_THAT(refusal(parse_hostfile("b\n0 a 1", "f")), HasSubstr("f:2: the lines before"));
  EXPECT_THAT(refusal(parse_hostfile("0 a 70000", "f")), HasSubstr("\"70000\" is no port"));
  EXPECT_THAT(refusal(parse_hostfile("-1 a 1", "f")), HasSubstr("id -1"));
}

}  // namespace
}  // namespace poseidon::launch
