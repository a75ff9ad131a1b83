#include "pipeline/metrics.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace relay {
namespace {

TEST(Metrics, HaveNamesThatBeginWithThePrefix) {
  Metrics metrics("postgres_stream_");
  metrics.pipeline("orders")->delivered.Increment(3);
  metrics.pool_connections().Set(2);
  metrics.outbox_problem("orders").Set(1);
  std::istringstream text(metrics.text());
  int names = 0;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# HELP ")) continue;
    ++names;
    EXPECT_TRUE(line.starts_with("# HELP postgres_stream_")) << line;
  }
  EXPECT_GT(names, 20);
  EXPECT_NE(
      metrics.text().find("\npostgres_stream_messages_delivered_total{pipeline=\"orders\"} 3"),
      std::string::npos);
}

TEST(Metrics, ShowTheNumbersOfASourceForAsLongAsItTellsThem) {
  Metrics metrics("postgres_stream_");
  const auto orders = metrics.pipeline("orders");
  const auto shows = [&](const std::string& line) {
    return metrics.text().find("\n" + line + "\n") != std::string::npos;
  };
  SourceReport report;
  report.numbers = {{"backlog_transactions", "Transactions in the backlog", 7},
                    {"overflow_rows", "Rows in the overflow table", 1}};
  orders->show_source(report);
  metrics.pipeline("invoices")->show_source(report);
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 7"));
  EXPECT_TRUE(shows("postgres_stream_overflow_rows{pipeline=\"orders\"} 1"));

  report.numbers = {{"backlog_transactions", "Transactions in the backlog", 6}};
  orders->show_source(report);
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 6"));
  EXPECT_FALSE(shows("postgres_stream_overflow_rows{pipeline=\"orders\"} 1"));

  metrics.drop("orders");
  EXPECT_FALSE(shows("postgres_stream_backlog_transactions{pipeline=\"orders\"} 6"));
  EXPECT_TRUE(shows("postgres_stream_backlog_transactions{pipeline=\"invoices\"} 7"));
  metrics.pipeline("invoices")->show_source(std::nullopt);
  EXPECT_EQ(metrics.text().find("backlog_transactions{"), std::string::npos);
}

}  // namespace
}  // namespace relay
