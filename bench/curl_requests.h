#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "outbox_reader.h"

namespace bench {

/// One POST at a time: what it says and what it was answered.
struct Request {
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;  // of this POST alone; freed when it is answered
  std::string body;
  std::string answer;
  std::function<void(Request&)> answered;
};

/// Many POSTs at once, each with a 2xx for an answer. One thread.
class Requests {
 public:
  /// `aim` sets the address of a new handle, and what else is the same for each POST of it.
  explicit Requests(std::function<void(CURL*)> aim) : aim_(std::move(aim)) {}

  std::size_t under_way() const { return all_.size() - free_.size(); }

  /// One that is not under way, waiting while `at_once` of them are.
  Request& unused(std::size_t at_once) {
    while (under_way() >= at_once) turn();
    if (free_.empty()) add();
    Request& request = *free_.back();
    free_.pop_back();
    request.body.clear();
    request.answer.clear();
    return request;
  }

  /// Sends its body; `answered` is called in a turn().
  void send(Request& request, std::function<void(Request&)> answered) {
    request.answered = std::move(answered);
    curl_easy_setopt(request.easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
    curl_easy_setopt(request.easy, CURLOPT_POSTFIELDS, request.body.data());
    if (request.headers != nullptr) {
      curl_easy_setopt(request.easy, CURLOPT_HTTPHEADER, request.headers);
    }
    curl_multi_add_handle(multi_, request.easy);
  }

  /// Moves bytes, and waits for some where none of the POSTs was answered.
  void turn() {
    int running = 0;
    curl_multi_perform(multi_, &running);
    bool ended = false;
    int left = 0;
    while (CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
      take(*message);
      ended = true;
    }
    if (!ended) curl_multi_poll(multi_, nullptr, 0, 1000, nullptr);
  }

  void finish() {
    while (under_way() > 0) turn();
  }

 private:
  static std::size_t keep(char* bytes, std::size_t size, std::size_t count, void* answer) {
    static_cast<std::string*>(answer)->append(bytes, size * count);
    return size * count;
  }

  void add() {
    Request& request = all_.emplace_back();
    request.easy = curl_easy_init();
    curl_easy_setopt(request.easy, CURLOPT_POST, 1L);
    curl_easy_setopt(request.easy, CURLOPT_WRITEFUNCTION, &keep);
    curl_easy_setopt(request.easy, CURLOPT_WRITEDATA, &request.answer);
    curl_easy_setopt(request.easy, CURLOPT_PRIVATE, &request);
    aim_(request.easy);
    free_.push_back(&request);
  }

  void take(const CURLMsg& message) {
    Request* request = nullptr;
    long status = 0;
    curl_easy_getinfo(message.easy_handle, CURLINFO_PRIVATE, &request);
    curl_easy_getinfo(message.easy_handle, CURLINFO_RESPONSE_CODE, &status);
    if (message.data.result != CURLE_OK) die("POST", curl_easy_strerror(message.data.result));
    if (status / 100 != 2) die("POST", request->answer.c_str());
    curl_multi_remove_handle(multi_, request->easy);
    curl_slist_free_all(std::exchange(request->headers, nullptr));
    request->answered(*request);
    free_.push_back(request);
  }

  CURLM* const multi_ = curl_multi_init();
  const std::function<void(CURL*)> aim_;
  std::deque<Request> all_;
  std::vector<Request*> free_;
};

}  // namespace bench
