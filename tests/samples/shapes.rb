# frozen_string_literal: true

require 'set'
require_relative 'base'

LIMIT = 10

# Adds up.
def area(width, height = 2)
  width * height
end

def empty; end
def twice(x) = x * 2

module Shapes
  # A shape.
  class Shape < Base
    attr_reader :name

    def initialize(name)
      @name = name
    end

    def self.of(x) = new(x)

    private def secret
      1
    end
    class << self
      def k
      end
    end
  end
end
