#include "http/server/connections.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace relay::http {
namespace {

std::vector<std::string> closed;

class Connection : public ListedConnection {
 public:
  explicit Connection(std::string name) : name_(std::move(name)) {}

 private:
  void close() override { closed.push_back(name_); }
  const std::string name_;
};

class ConnectionsTest : public testing::Test {
 protected:
  ConnectionsTest() {
    closed.clear();
    for (Connection* one : {&a_, &b_, &c_, &d_}) all_.enter(*one);
  }
  Connections all_;
  Connection a_{"a"};
  Connection b_{"b"};
  Connection c_{"c"};
  Connection d_{"d"};
};

TEST_F(ConnectionsTest, TheOneThatIsInItsStateLongestIsClosedFirst) {
  all_.wait_for_client(a_);
  EXPECT_TRUE(all_.close_first());
  EXPECT_TRUE(all_.close_first());
  EXPECT_EQ(closed, (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(all_.size(), 2u);
}

TEST_F(ConnectionsTest, OfTheKindThatThereAreMoreOf) {
  all_.wait_for_worker(a_);
  all_.close_first();
  EXPECT_EQ(closed, (std::vector<std::string>{"b"}));
  all_.wait_for_worker(c_);
  all_.close_first();
  EXPECT_EQ(closed, (std::vector<std::string>{"b", "a"}));
}

TEST_F(ConnectionsTest, OneThatWasClosedStaysOutOfTheList) {
  all_.close_first();
  all_.wait_for_client(a_, 5);
  all_.wait_for_worker(a_);
  all_.leave(a_);
  EXPECT_EQ(all_.size(), 3u);
  EXPECT_EQ(all_.unread(), 0u);
}

TEST_F(ConnectionsTest, ThereIsNothingToCloseWhereThereIsNone) {
  for (Connection* one : {&a_, &b_, &c_, &d_}) all_.leave(*one);
  EXPECT_FALSE(all_.close_first());
  EXPECT_TRUE(closed.empty());
}

TEST_F(ConnectionsTest, TheClientThatHasNotTakenItsAnswerLongestIsClosedFirst) {
  all_.wait_for_client(c_, 10);
  all_.wait_for_client(a_, 20);
  all_.wait_for_client(b_, 30);
  EXPECT_EQ(all_.unread(), 60u);
  EXPECT_TRUE(all_.close_first_unread(c_));
  EXPECT_EQ(closed, (std::vector<std::string>{"a"}));
  EXPECT_EQ(all_.unread(), 40u);
  all_.wait_for_client(b_);  // it has taken its answer
  EXPECT_FALSE(all_.close_first_unread(c_));
  EXPECT_EQ(all_.unread(), 10u);
}

TEST_F(ConnectionsTest, ThoseThatAreChosenAreClosedWhateverTheirState) {
  all_.wait_for_worker(b_);
  all_.wait_for_worker(c_);
  all_.close_where([&](const ListedConnection& one) { return &one == &a_ || &one == &c_; });
  EXPECT_EQ(closed, (std::vector<std::string>{"a", "c"}));
  EXPECT_EQ(all_.size(), 2u);
}

}  // namespace
}  // namespace relay::http
