"""Text to compress conversations with: what most of them contain, the most frequent last.

A conversation can only be read with the text it was written with, so a change to it needs a new
`VERSION` in `core.chat.conversation`.
"""

PHRASES = """\
하십시오 하겠습니다 있었습니다 했습니다 됩니다 입니다. 합니다. 있습니다. 수 있습니다. 할 수 \
있습니다. 있는 하는 되는 위한 위해 대한 대해 통해 에서 으로 에게 까지 부터 그리고 하지만 그러나 \
또한 따라서 예를 들어 다음과 같은 다음과 같습니다 가장 많은 때문에 경우 사용 사람 생각 방법 \
설명해 주세요. 알려 주세요. 해 주세요. 무엇인가요? 어떻게 무엇을 도움이 필요하시면 언제든지 \
말씀해 주세요. 안녕하세요! 무엇을 도와드릴까요? 감사합니다. 죄송합니다. 네, ```javascript
const function => { return document.console.log( }; ```bash
```html
<div class="></div> ```json
{"name": "value", "type": "string"} ```sql
SELECT * FROM WHERE ```python
import from class def __init__(self, self. for i in range(len( if not None: else: elif True \
False return print(f"
```

| --- | --- |
### 1. **: ** 2. ** 3. ** 4. ** 5. **
- **Step Note: Example Conclusion Introduction Overview Summary Key features Benefits Tips \
https://www.
# Output: following example code function string number list value data file system user model \
language computer program software development machine learning artificial intelligence \
technology science history culture country capital city government company business market \
money price energy health water food recipe ingredients minutes cooking school student book \
story character family friend child woman man life world place year years day days week month \
time times hour today night morning January February March April June July August September \
October November December Monday Tuesday Wednesday Thursday Friday Saturday Sunday million \
billion percent century between without through during before after around against under within \
because although however, therefore, additionally, furthermore, finally, instead different \
important possible available popular common specific particular several another various \
including such as well known as one of the most important based on according to depending on in \
order to due to a lot of in addition to, for example, on the other hand, as a result, make sure \
that there are many ways to it's important to keep in mind that would should could might must \
does did done been being were was had has have having made make makes making used use uses \
using take taken give given find help need want know think look work get go come see say said \
tell ask try call write read run create change start end show explain describe provide include \
contain consider understand improve learn more about less than then them they their there these \
those this that what when where which while who why how with will would your you're you can \
also into over only other some any all each every both few many much very just like even still \
first second third last next new old good great best better high low large small big long short \
easy quick simple different same right left open close
What is the difference between How do I Can you explain Could you please Please write a Tell me \
about Write a short Give me an example of Why does What are some What does How can I Thanks! \
Thank you. OK
I'm sorry, but I don't have I cannot As an AI language model, It seems like you It sounds like \
Yes, No, You're welcome! Of course! Certainly! Absolutely! Great question! Sure! Here is a Here \
are some Here's an Let me know if you have any other questions! I hope this helps! Is there \
anything else I can help you with? Would you like me to Feel free to ask. Do you have any You \
are a helpful assistant. is a of the in the to the and the for the on the from the by the with \
a that is it is can be , and , but , or . It . The . This . In . You . If . For The the of and \
to in is
Hi! Hello! How can I help you today? How can I assist you today?
"""
