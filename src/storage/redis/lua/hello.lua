
return told(head_of_now(), false)
