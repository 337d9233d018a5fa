#include "launch/reach.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <array>

namespace poseidon::launch {
namespace {

using testing::Contains;
using testing::ElementsAre;

TEST(Reach, WordsAreQuotedForAShell) {
  EXPECT_EQ(shell_quoted("/usr/bin/poseidon"), "/usr/bin/poseidon");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_EQ(shell_quoted("two words"), "'two words'");
  EXPECT_EQ(shell_quoted("it's $HOME"), "'it'\\''s $HOME'");
}

TEST(Reach, SshIsCalledWithWhatTheUserSays) {
  ReachOptions options;
  options.ssh = {"ssh", "-p2222"};
  options.user = "ubuntu";
  options.key = "key.pem";
  options.program = "/opt/my poseidon";
  options.virtualenv = "/home/ubuntu/env";
  const std::vector<std::string> command = agent_command("10.0.0.2", options);
  EXPECT_EQ(command.front(), "ssh");
  for (const char* word : {"-p2222", "BatchMode=yes", "ubuntu", "key.pem", "10.0.0.2"}) EXPECT_THAT(command, Contains(word));
  EXPECT_EQ(command.back(), ". /home/ubuntu/env/bin/activate && exec '/opt/my poseidon' agent");
}

TEST(Reach, ThisHostIsKnownByItsNames) {
  EXPECT_TRUE(is_this_host("localhost"));
  EXPECT_TRUE(is_this_host("127.0.0.1"));
  EXPECT_TRUE(is_this_host("127.3.2.1"));
  std::array<char, 256> name{};
  ASSERT_EQ(::gethostname(name.data(), name.size() - 1), 0);
  EXPECT_TRUE(is_this_host(name.data()));
  for (const OwnAddress& own : own_addresses()) EXPECT_TRUE(is_this_host(own.address)) << own.address;
  EXPECT_FALSE(is_this_host("203.0.113.7"));
  EXPECT_FALSE(is_this_host("somebody@localhost"));
  EXPECT_FALSE(is_this_host("no-such-host"));
}

TEST(Reach, NetworksContainTheirAddresses) {
  const Result<Network> ten = Network::parse("10.0.0.0/9");
  ASSERT_TRUE(ten.ok());
  EXPECT_TRUE(ten->contains("10.1.2.3"));
  EXPECT_TRUE(ten->contains("10.127.255.255"));
  EXPECT_FALSE(ten->contains("10.128.0.0"));
  EXPECT_FALSE(ten->contains("fe80::1"));
  EXPECT_FALSE(ten->contains("nonsense"));
  EXPECT_TRUE(Network::parse("fd00::/8")->contains("fd12::7"));
  EXPECT_TRUE(Network::parse("10.0.0.7")->contains("10.0.0.7"));
  EXPECT_FALSE(Network::parse("10.0.0.7")->contains("10.0.0.8"));
  EXPECT_TRUE(Network::parse("0.0.0.0/0")->contains("192.168.1.1"));
  for (const char* text : {"", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8", "host", "10.0.0.0/8x"}) {
    EXPECT_FALSE(Network::parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace poseidon::launch
