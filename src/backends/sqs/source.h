#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "backends/sqs/options.h"
#include "backends/sqs/receipts.h"
#include "backends/sqs/received.h"
#include "backends/sqs/service.h"
#include "connector/field_mapping.h"
#include "connector/source.h"

namespace relay::sqs {

/// Receives from a queue by long polls. A message is deleted only when `acknowledge` says that it
/// is settled; until then a thread of the source's own keeps it hidden from others, also what came
/// and no batch has yet. What was received and not deleted comes again: at once after an orderly
/// end (what SQS gives to a long poll in the moment of the end excepted), else when it has been
/// hidden for `visibility_timeout`.
///
/// Reading, acknowledging and keeping hidden have connections of their own, since they are of three
/// threads.
class SqsSource : public Source {
 public:
  SqsSource(SourceOptions options, FieldMapping mapping)
      : options_(std::move(options)), mapping_(std::move(mapping)) {}
  ~SqsSource() override { close(); }

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::chrono::milliseconds tend(std::stop_token stop) override;
  std::optional<std::int64_t> lag() override;
  bool lag_may_be_withheld() const override { return true; }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  void tell_of_redrive(std::stop_token stop);
  Result<void> receive(Deadline deadline, std::stop_token stop);
  Result<void> collect(Deadline deadline, std::stop_token stop);
  Result<void> take(const http::Response& response);
  bool take_last_answers();
  void give_back();
  void keep_hidden(std::stop_token stop);
  void extend(Service& service, std::stop_token stop);
  std::optional<std::int64_t> ask_lag(Service& service, std::stop_token stop);

  const SourceOptions options_;
  const FieldMapping mapping_;
  Receipts receipts_;
  std::atomic<std::int64_t> lag_{-1};  // -1: not known

  // Of the reader's thread.
  struct Numbered {
    std::int64_t number;
    Received message;
  };
  std::unique_ptr<Service> service_;
  std::deque<Numbered> received_;  // and not handed out yet
  std::shared_ptr<const TableShape> shape_;

  std::unique_ptr<Service> ack_service_;  // of the thread that acknowledges
  std::jthread keeper_;
};

}  // namespace relay::sqs
