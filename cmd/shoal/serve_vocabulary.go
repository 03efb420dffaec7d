package main

import (
	"strconv"
	"strings"

	"github.com/shoal-go/shoal/manager"
)

// checkVocabulary complains of classes and words that the manager would refuse.
func (f *serveFlags) checkVocabulary(s *settings) {
	classes := make(map[string]manager.ActionClass)
	for _, text := range f.Class {
		action, class, err := manager.ParseActionClass(text)
		if err != nil {
			s.refuse("class", "has the entry "+strconv.Quote(text)+", which "+err.Error()+
				"; an example is build_progress=state:build_id")
			continue
		}
		if other, twice := classes[action]; twice && other != class {
			s.refuse("class", "gives "+strconv.Quote(action)+" two classes, "+other.String()+" and "+class.String())
		}
		classes[action] = class
	}
	checkWords(s, "statuses", f.Statuses)
	checkWords(s, "stages", f.Stages)
}

func checkWords(s *settings, flag string, words []string) {
	for _, word := range splitWords(words) {
		if err := manager.CheckWord(word); err != nil {
			s.refuse(flag, "has the entry "+strconv.Quote(word)+", which "+err.Error())
		}
	}
}

// splitWords returns the words of lists that are separated by commas.
func splitWords(lists []string) (words []string) {
	for _, list := range lists {
		words = append(words, strings.Split(list, ",")...)
	}
	return words
}

// classes returns the manager's option; checkVocabulary has refused any error.
func (f *serveFlags) classes() map[string]manager.ActionClass {
	classes := make(map[string]manager.ActionClass, len(f.Class))
	for _, text := range f.Class {
		action, class, _ := manager.ParseActionClass(text)
		classes[action] = class
	}
	return classes
}
